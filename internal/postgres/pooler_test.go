package postgres_test

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/eventhose/eventhose/internal/pgtest"
	"github.com/eventhose/eventhose/internal/postgres"
)

// pooler is a connection pooler in transaction mode: each transaction of a client is carried out by the server's connection that was idle longest, so that
// no two in a row have the same one.
type pooler struct {
	*testing.T
	idle    chan net.Conn
	clients sync.WaitGroup
}

// newPooler starts one before a database and answers its URL.
func newPooler(t *testing.T, url string, connections int) string {
	t.Helper()
	p := &pooler{T: t, idle: make(chan net.Conn, connections)}
	for range connections {
		conn, err := pgconn.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		hijacked, err := conn.Hijack()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { hijacked.Conn.Close() })
		p.idle <- hijacked.Conn
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			p.clients.Go(func() { defer client.Close(); p.serve(client) })
		}
	})
	t.Cleanup(func() { l.Close(); accepting.Wait(); p.clients.Wait() })
	return "postgres://postgres@" + l.Addr().String() + "/pooled?sslmode=disable&default_query_exec_mode=cache_describe"
}

// serve carries out what a client asks for until it leaves, which it does outside of transactions.
func (p *pooler) serve(client net.Conn) {
	b := pgproto3.NewBackend(client, client)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.BackendKeyData{SecretKey: []byte{0, 0, 0, 0}})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if b.Flush() != nil {
		return
	}
	var server net.Conn
	for {
		message, err := protocolMessage(client)
		if err != nil || message[0] == 'X' {
			if server != nil {
				p.Error("a client left in the middle of a transaction")
			}
			return
		}
		if server == nil {
			server = <-p.idle
		}
		if _, err := server.Write(message); err != nil {
			p.Error(err)
			return
		}
		for last := message[0] == 'S' || message[0] == 'Q'; last; {
			answer, err := protocolMessage(server)
			if err != nil {
				p.Error(err)
				return
			}
			if last = answer[0] != 'Z'; !last && answer[5] == 'I' {
				p.idle <- server
				server = nil
			}
			if _, err := client.Write(answer); err != nil {
				return
			}
		}
	}
}

// protocolMessage reads one message: its type, its length and what that counts.
func protocolMessage(r io.Reader) ([]byte, error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	message := append(head, make([]byte, binary.BigEndian.Uint32(head[1:])-4)...)
	_, err := io.ReadFull(r, message[5:])
	return message, err
}

// Behind a pooler that gives each transaction another session every call works, in whatever way that keeps no statement in a session.
func TestEveryCallBehindAPooler(t *testing.T) {
	url := newPooler(t, pgtest.Database(t), 5)
	for _, mode := range []string{"cache_describe", "exec", "simple_protocol"} {
		st, err := postgres.Open(t.Context(), strings.Replace(url, "cache_describe", mode, 1), postgres.Options{MaxConns: 4, Upkeep: -1})
		if err != nil {
			t.Fatal(err)
		}
		for name, call := range everyCall(st) {
			for range 2 {
				if err := call(t.Context()); err != nil {
					t.Errorf("%s with %s: %v", name, mode, err)
				}
			}
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Behind a pooler that gives each transaction another session the upkeep does what it does without: no lock stays behind in a session.
func TestUpkeepBehindAPooler(t *testing.T) {
	g := newGrowth(t, postgres.Options{MaxConns: 4, PartitionSize: 1})
	fillForUpkeep(t, g.nodes[0])
	url := newPooler(t, g.db.Config().ConnString(), 5)
	for range 3 {
		for range 2 {
			st, err := postgres.Open(t.Context(), url, postgres.Options{MaxConns: 4, PartitionSize: 1, Upkeep: -1})
			if err != nil {
				t.Fatal(err)
			}
			if err := st.Upkeep(t.Context()); err != nil {
				t.Errorf("upkeep: %v", err)
			}
			if err := st.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if n := ask[int](t, g.db, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"); n > 0 {
		t.Errorf("%d locks are left behind", n)
	}
	if n := ask[int](t, g.db, "SELECT count(*) FROM eventhose.partitions WHERE part = 1"); n > 0 {
		t.Error("the partition is never dropped")
	}
	checkAfterUpkeep(t, g)
}
