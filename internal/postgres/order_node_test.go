package postgres_test

// A node that is a process, so that it can be frozen in the middle of an append: the test binary, which appends in a loop and says so.

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/postgres"
)

// The environment that makes TestOrderUnderDelay be such a node.
const (
	nodeURLEnv  = "EVENTHOSE_ORDER_NODE"
	nodeSeedEnv = "EVENTHOSE_ORDER_NODE_SEED"
)

// nodeNumber is that of its appender.
const nodeNumber = 1000

// nodeLine is what the node says: that it begins to append, or what was answered.
type nodeLine struct {
	Began   time.Time // zero in an answer
	Entries []nodeEntry
}

type nodeEntry struct {
	Tenant eventhose.TenantID
	Tokens []token
	First  eventhose.Sequence
}

// beNode appends to the database until it is killed.
func beNode(t *testing.T, url string) {
	var seed uint64
	fmt.Sscan(os.Getenv(nodeSeedEnv), &seed)
	st, err := postgres.Open(t.Context(), url, postgres.Options{MaxConns: 2, Upkeep: -1})
	if err != nil {
		t.Fatal(err)
	}
	a := appender{number: nodeNumber, rng: rand.New(rand.NewPCG(seed, nodeNumber))}
	for out := json.NewEncoder(os.Stdout); ; {
		group, _ := a.group()
		line := nodeLine{Began: time.Now()}
		for i := range group {
			e := nodeEntry{Tenant: group[i].Tenant}
			for _, n := range group[i].Events {
				e.Tokens = append(e.Tokens, tokenOf(n.Event.Data))
			}
			line.Entries = append(line.Entries, e)
		}
		if err := out.Encode(line); err != nil {
			t.Fatal(err)
		}
		results, err := st.Append(t.Context(), group)
		if err != nil {
			t.Fatal(err)
		}
		line.Began = time.Time{}
		for i, r := range results {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			line.Entries[i].First = r.Placements[0].Sequence
		}
		if err := out.Encode(line); err != nil {
			t.Fatal(err)
		}
	}
}

// node is that process, seen from the test.
type node struct {
	cmd *exec.Cmd
	h   *history
	// appending says that it has begun to append and has not said what was answered.
	appending atomic.Bool
	acks      atomic.Int64
	said      sync.WaitGroup
}

func startNode(t *testing.T, url string, seed uint64, h *history) *node {
	t.Helper()
	n := &node{h: h, cmd: exec.Command(os.Args[0], "-test.run=^TestOrderUnderDelay$")}
	n.cmd.Env = append(os.Environ(), nodeURLEnv+"="+url, fmt.Sprint(nodeSeedEnv, "=", seed))
	n.cmd.Stderr = os.Stderr
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n.said.Go(func() {
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var line nodeLine
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				if !strings.HasPrefix(lines.Text(), "{") { // what the test binary says by itself
					h.fault("the node says %s", lines.Text())
				}
				continue // it was killed in the middle of the line
			}
			n.hear(line)
		}
	})
	return n
}

func (n *node) hear(line nodeLine) {
	h := n.h
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range line.Entries {
		for i, k := range e.Tokens {
			if line.Began.IsZero() {
				h.ack(e.Tenant, e.First+eventhose.Sequence(i), k, false)
				delete(h.maybe, k)
				continue
			}
			h.maybe[k] = e.Tenant
			// Its clock is this one's, or nearly, should somebody set it meanwhile.
			h.since[k] = max(0, line.Began.Sub(h.began.Round(0))-time.Second)
		}
	}
	if n.appending.Store(!line.Began.IsZero()); line.Began.IsZero() {
		n.acks.Add(1)
	}
}

// freeze stops the process, wherever it is, until thaw.
func (n *node) freeze() error { return n.cmd.Process.Signal(syscall.SIGSTOP) }
func (n *node) thaw() error   { return n.cmd.Process.Signal(syscall.SIGCONT) }

// kill kills the process, and waits for it and for what it has said.
func (n *node) kill() {
	n.cmd.Process.Kill()
	n.said.Wait()
	n.cmd.Wait()
}

// pollEvery is how often facts are asked for.
const pollEvery = 2 * time.Millisecond

// until waits for a fact, and reports whether it came before ctx ended.
func until(ctx context.Context, fact func() bool) bool {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !fact() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}
