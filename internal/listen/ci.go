package listen

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/sign"
)

// Check is a run of a command during which events are forwarded and counted. It keeps its cursor itself: nothing of it is left
// at the server, and a key that may only read is enough.
type Check struct {
	Tenant   *client.Tenant
	TenantID eventhose.TenantID
	Forward  *Forwarder
	Tell     Teller
	// Filter says what is forwarded. ForwardTo is where to; "" only counts.
	Filter    eventhose.Filter
	ForwardTo string
	// Secret signs; "" is one made for this run. The command finds it in EVENTHOSE_SECRET, and ForwardTo in EVENTHOSE_FORWARD_URL.
	Secret eventhose.Secret
	Expect []Expectation
	// Timeout bounds the run.
	Timeout time.Duration
	// Command is run with its standard streams and environment set, and no Cancel.
	Command *exec.Cmd
}

// killAfter is how long a command that was asked to end may take about it.
const killAfter = 10 * time.Second

// Run runs the command and goes on until it has ended, what was appended until then is forwarded, and all that was expected
// holds; or until that cannot be any more, or time is up. An event counts when the target has taken it. Whatever ends it, the
// command has ended too, by a signal if it had not by itself. Errors are the server's, the context's, and that the command
// could not be started; everything else is in the report.
func (c *Check) Run(ctx context.Context) (*Report, error) {
	began := time.Now()
	timed, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	secret := c.Secret
	if secret == "" {
		secret = eventhose.Secret(sign.NewSecret().Reveal())
	}
	r := &run{Check: c, events: make([]int, len(c.Expect)), counted: make(chan struct{}, 1)}
	if c.ForwardTo != "" {
		var err error
		if r.target, err = c.Forward.Target(c.TenantID, c.ForwardTo, eventhose.LiveSecret{Secret: secret}); err != nil {
			return nil, err
		}
	}
	from, err := c.Tenant.Head(timed)
	if err != nil {
		return nil, err
	}
	r.at = from
	// A filter that the server refuses is told of before the command runs, which may leave nothing to be forwarded.
	if _, err := c.Tenant.Read(timed, client.ReadOptions{After: from, Limit: 1, Types: c.Filter.Types, Expression: c.Filter.Expression}); err != nil {
		return nil, err
	}

	following, stop := context.WithCancel(timed)
	failed := make(chan error, 1)
	var follower sync.WaitGroup
	follower.Go(func() { failed <- r.follow(following) })
	defer func() { stop(); follower.Wait() }()

	running, kill := context.WithCancelCause(context.WithoutCancel(ctx))
	defer kill(nil)
	exited, err := r.start(running, secret)
	if err != nil {
		return nil, err
	}
	report := &Report{}
	err = r.await(timed, exited, failed, report)
	if exited != nil && !r.exited {
		kill(err)
		report.Exit = <-exited
	}
	stop()
	follower.Wait()
	r.tell(report)
	report.Duration = eventhose.Duration(time.Since(began))
	switch {
	case ctx.Err() != nil:
		return report, context.Cause(ctx)
	case timed.Err() != nil:
		report.TimedOut = !r.exited
		report.Behind = r.exited && !r.over && report.Exit == 0
		err = nil
	}
	report.Passed = err == nil && !report.TimedOut && !report.Behind && report.Exit == 0 && report.Met()
	return report, err
}

// run is one use of a Check.
type run struct {
	*Check
	target *Target
	exited bool // the command, by itself
	over   bool // everything that stood in the log when the command ended is dealt with

	mu       sync.Mutex
	at       eventhose.Cursor // everything up to it is dealt with
	events   []int            // by expectation
	total    int
	attempts []Attempt
	counted  chan struct{} // something in the above has changed
}

// start starts the command. Its exit code comes once it has ended; it is asked to end when ctx ends.
func (r *run) start(ctx context.Context, secret eventhose.Secret) (<-chan int, error) {
	given := r.Command
	cmd := exec.CommandContext(ctx, given.Path, given.Args[1:]...)
	cmd.Args = given.Args
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir = given.Stdin, given.Stdout, given.Stderr, given.Dir
	cmd.Env = append(slices.Clone(given.Env), "EVENTHOSE_SECRET="+string(secret))
	if r.target != nil {
		cmd.Env = append(cmd.Env, "EVENTHOSE_FORWARD_URL="+r.target.URL())
	}
	cmd.WaitDelay = killAfter
	cmd.Cancel = func() error {
		if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			return terminate(cmd.Process)
		}
		return interrupt(cmd.Process)
	}
	if err := cmd.Start(); err != nil {
		return nil, &eventhose.Error{Code: eventhose.CodeInvalid, Field: "command", Message: err.Error(), Fix: "name a program after --, such as -- ./run-tests.sh; a script begins with #! and is executable"}
	}
	exited := make(chan int, 1)
	go func() { // Run takes what it sends, always
		_ = cmd.Wait() // what counts is the code
		exited <- cmd.ProcessState.ExitCode()
	}()
	return exited, nil
}

// await waits for the end: nil once nothing more can change what the report will say.
func (r *run) await(ctx context.Context, exited <-chan int, failed <-chan error, report *Report) error {
	var end eventhose.Cursor
	ended := false // end is known
	poll := time.NewTicker(500 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case report.Exit = <-exited:
			r.exited = true
			if report.Exit != 0 {
				return nil
			}
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-r.counted:
		case <-poll.C:
		}
		if !r.exited {
			continue
		}
		var err error
		if !ended {
			end, err = r.Tenant.Head(ctx)
			ended = err == nil
		}
		if ended && !r.over {
			r.over, err = r.dealtWith(ctx, end)
		}
		if err != nil && !client.Passing(err) { // what passes is asked for again
			return err
		}
		if r.over && r.decided() {
			return nil
		}
	}
}

// dealtWith reports whether no event up to a place is still to be forwarded.
func (r *run) dealtWith(ctx context.Context, upTo eventhose.Cursor) (bool, error) {
	r.mu.Lock()
	at := r.at
	r.mu.Unlock()
	for at.Sequence < upTo.Sequence {
		page, err := r.Tenant.Read(ctx, client.ReadOptions{After: at, Limit: 1, Types: r.Filter.Types, Expression: r.Filter.Expression})
		switch {
		case err != nil:
			return false, err
		case len(page.Events) > 0:
			return page.Events[0].Sequence > upTo.Sequence, nil
		case page.Cursor.Sequence <= at.Sequence:
			return false, nil
		}
		at = page.Cursor
	}
	return true, nil
}

// decided reports whether all that was expected holds, or something cannot any more.
func (r *run) decided() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := true
	for i := range r.Expect {
		e := &r.Expect[i]
		if e.Passed(r.events[i]) {
			return true
		}
		all = all && e.Holds(r.events[i])
	}
	return all
}

// follow forwards what comes, in order, until ctx ends. It answers an error only if going on is no use.
func (r *run) follow(ctx context.Context) error {
	var lost time.Time
	o := client.FollowOptions{After: r.at, Types: r.Filter.Types, Expression: r.Filter.Expression,
		Lost: func(err error) {
			if lost.IsZero() {
				lost = time.Now()
				r.Tell.Lost("", err)
			}
		},
		Reconnected: func(error) {
			r.Tell.Back("", time.Since(lost))
			lost = time.Time{}
		},
		Moved: func(c eventhose.Cursor) {
			r.mu.Lock()
			r.at = c
			r.mu.Unlock()
			r.changed()
		}}
	previous := eventhose.Sequence(0)
	for e, err := range r.Tenant.Follow(ctx, o) {
		if err != nil {
			return err
		}
		if !r.forward(ctx, &eventhose.Leased{Event: e, Previous: previous}) {
			return nil
		}
		previous = e.Sequence
	}
	return nil
}

// forward tries until the target has taken an event, and reports whether it has before ctx ended.
func (r *run) forward(ctx context.Context, l *eventhose.Leased) bool {
	for number := 1; r.target != nil; number++ {
		r.Tell.Sending("", &l.Event)
		a, wait := r.Forward.Send(ctx, r.target, l, number)
		r.Tell.Tried(a)
		r.mu.Lock()
		if len(r.attempts) < MaxReported {
			r.attempts = append(r.attempts, a)
		}
		r.mu.Unlock()
		if a.Taken() {
			break
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
	if r.target == nil {
		r.Tell.Sending("", &l.Event)
	}
	r.mu.Lock()
	r.total++
	for i := range r.Expect {
		if r.Expect[i].Matches(l.Event.Type) {
			r.events[i]++
		}
	}
	r.mu.Unlock()
	r.changed()
	return true
}

func (r *run) changed() {
	select {
	case r.counted <- struct{}{}:
	default:
	}
}

// tell fills in what was counted.
func (r *run) tell(report *Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	report.Events = r.total
	report.Attempts = append([]Attempt{}, r.attempts...)
	report.Checked = make([]Checked, len(r.Expect))
	for i, e := range r.Expect {
		report.Checked[i] = Checked{Expect: e.Text, Events: r.events[i], Held: e.Holds(r.events[i])}
	}
}

// interrupt and terminate ask a process to end, where a signal can.
func interrupt(p *os.Process) error {
	if err := p.Signal(os.Interrupt); err == nil || errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return p.Kill()
}

// Validate checks what can be checked without a server. Errors are CodeInvalid with the field.
func (c *Check) Validate() error {
	for i := range c.Expect { // system events are forwarded only where a pattern names them
		if e := &c.Expect[i]; strings.HasPrefix(e.Types, eventhose.SystemPrefix) && !slices.Contains(c.Filter.Types, e.Types) {
			if len(c.Filter.Types) == 0 {
				c.Filter.Types = []string{"*"}
			}
			c.Filter.Types = append(c.Filter.Types, e.Types)
		}
	}
	r := Route{Group: "ci", Filter: c.Filter, ForwardTo: c.ForwardTo, Secret: c.Secret}
	if c.ForwardTo == "" {
		r.ForwardTo = "nowhere"
	}
	return r.Validate()
}
