package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// takeAll counts what comes until ctx ends or a stream does. One thread waits for all of them: a goroutine for each would cost
// four times as much of the cores that the server is measured on.
func takeAll(ctx context.Context, all []*reader) error {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("wait for many connections: %w", err)
	}
	defer unix.Close(poll)
	fds := make([]int, len(all))
	for i, r := range all {
		raw, err := r.conn.(syscall.Conn).SyscallConn()
		if err != nil {
			return err
		}
		var failed error
		err = raw.Control(func(fd uintptr) {
			fds[i] = int(fd)
			failed = unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)})
		})
		if err = errors.Join(err, failed); err != nil {
			return err
		}
	}
	events, buffer := make([]unix.EpollEvent, 256), make([]byte, 64<<10)
	for ctx.Err() == nil {
		n, err := unix.EpollWait(poll, events, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		for _, e := range events[:max(0, n)] {
			n, err := unix.Read(fds[e.Fd], buffer)
			switch {
			case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			case err != nil:
				return err
			case n == 0:
				return io.EOF
			default:
				all[e.Fd].part(buffer[:n])
			}
		}
	}
	return nil
}
