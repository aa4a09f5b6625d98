//go:build !linux

package bench

import (
	"errors"
	"net"
	"time"
)

// ownCPU is not known here.
func ownCPU() time.Duration { return 0 }

func fileSystem(string) string { return "" }

func inMemory(string) bool { return false }

func listenFull() (net.Listener, error) {
	return nil, errors.New("destinations that swallow connections are made on Linux only")
}
