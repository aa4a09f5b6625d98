package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"
)

// The names of the parts.
const (
	partReceiver  = "receiver"
	partLoad      = "load"
	partPlain     = "plain-loop"
	partBareFile  = "bare-file"
	partInProcess = "in-process"
	partPgxLoop   = "pgx-loop"
	partReaders   = "readers"
)

// part is a child process that takes orders.
type part struct {
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	err  *tail
}

// startPart starts a part.
func (b *bench) startPart(ctx context.Context, name string) (*part, error) {
	p := &part{name: name, err: &tail{}}
	p.cmd = exec.Command(b.Command[0], append(b.Command[1:len(b.Command):len(b.Command)], "bench", "part", name)...)
	p.cmd.Stderr = p.err
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReaderSize(out, 1<<16)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the part %s: %w", name, err)
	}
	return p, ctx.Err()
}

// call gives an order and reads the answer into into. One call at a time.
func (p *part) call(ctx context.Context, order, into any) error {
	line, err := json.Marshal(order)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.cmd.Process.Kill() })
	defer stop()
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("the part %s has ended: %w %s", p.name, err, p.err)
	}
	answer, err := p.out.ReadBytes('\n')
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("the part %s has ended: %w %s", p.name, err, p.err)
	}
	var failed struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(answer, &failed); err != nil {
		return fmt.Errorf("the part %s answers %q: %w", p.name, answer, err)
	}
	if failed.Error != "" {
		return fmt.Errorf("the part %s: %s", p.name, failed.Error)
	}
	return json.Unmarshal(answer, into)
}

// close ends the part, which ends with its input.
func (p *part) close() error {
	_ = p.in.Close()
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-ended
		return fmt.Errorf("the part %s did not end", p.name)
	}
}

// orders are what a part is told, one after the other.
type orders struct {
	in  *bufio.Reader
	out io.Writer
}

func newOrders(in io.Reader, out io.Writer) *orders {
	return &orders{bufio.NewReaderSize(in, 1<<16), out}
}

// each calls do for each order, and answers what it answers, until there are no more.
func each[T any](o *orders, do func(T) (any, error)) error {
	for {
		line, err := o.in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var order T
		if err := json.Unmarshal(line, &order); err != nil {
			return err
		}
		answer, err := do(order)
		if err != nil {
			answer = map[string]string{"error": err.Error()}
		}
		if answer == nil {
			answer = struct{}{}
		}
		text, err := json.Marshal(answer)
		if err != nil {
			return err
		}
		if _, err := o.out.Write(append(text, '\n')); err != nil {
			return err
		}
	}
}

// tail keeps the last of what a child says on stderr, which is of interest when it fails.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > 4096 {
		t.b = append(t.b[:0], t.b[len(t.b)-2048:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.b) }
