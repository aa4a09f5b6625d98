//go:build !linux

package postgres

import (
	"net"
	"time"
)

// unanswered does nothing where there is no such option: what waits for an answer has its own deadline.
func unanswered(*net.TCPConn, time.Duration) error { return nil }
