package postgres

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// unanswered ends a connection when nothing that was sent has been acknowledged for so long (RFC 5482).
func unanswered(conn *net.TCPConn, after time.Duration) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(after.Milliseconds()))
	})
	return errors.Join(err, set)
}
