package postgres

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// Connections end by themselves when the server's machine is gone.
func TestAttended(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := config("postgres://" + l.Addr().String() + "/x")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := c.ConnConfig.DialFunc(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for option, want := range map[int]int{unix.TCP_USER_TIMEOUT: 10_000, unix.TCP_KEEPIDLE: 5, unix.TCP_KEEPINTVL: 1, unix.TCP_KEEPCNT: 5} {
		var got int
		if control := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option) }); control != nil || err != nil || got != want {
			t.Errorf("option %d is %d, not %d: %v, %v", option, got, want, control, err)
		}
	}
}
