package postgres

import (
	"net"
	"time"
)

// silence is how long a server that is gone without a word, as by loss of power, is taken for one that is slow.
const silence = 10 * time.Second

// attend has the kernel find out that nobody is at a connection's other end any more. By itself it takes a quarter of an hour.
func attend(conn *net.TCPConn) error {
	if err := conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: silence / 2, Interval: silence / 10, Count: 5}); err != nil {
		return err
	}
	return unanswered(conn, silence)
}
