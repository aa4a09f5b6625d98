package main

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"

	"github.com/eventhose/eventhose/client"
)

// What a command waits for may come at the last moment, and the answer has its own time to arrive.
func TestWaitComesOnTopOfTheTimeout(t *testing.T) {
	for _, of := range []struct {
		name string
		args []string
		env  map[string]string
		want time.Duration // 0 is refused
	}{
		{"nothing is said", nil, nil, time.Minute},
		{"the longest wait", []string{"--wait", "60s"}, nil, 2 * time.Minute},
		{"a time that is given counts", []string{"--wait", "20s", "--timeout", "30s"}, nil, 30 * time.Second},
		{"as does one of the environment", []string{"--wait", "20s"}, map[string]string{"EVENTHOSE_TIMEOUT": "30s"}, 30 * time.Second},
		{"a wait of the environment", nil, map[string]string{"LOOK_WAIT": "10s"}, 70 * time.Second},
		{"as long as the time", []string{"--wait", "30s", "--timeout", "30s"}, nil, 0},
		{"below nothing", []string{"--wait", "-1s"}, nil, 0},
	} {
		t.Run(of.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &program{err: io.Discard, env: func(name string) (string, bool) { s, ok := of.env[name]; return s, ok }}
				var got time.Duration
				c := &cobra.Command{Use: "look", PersistentPreRunE: p.prepare, SilenceErrors: true, SilenceUsage: true}
				c.PersistentFlags().StringVarP(&p.output, "output", "o", "text", "")
				p.waitFlag(c.Flags(), "how long to wait")
				p.connected(c, func(ctx context.Context, _ *client.Client, _ []string) error {
					end, _ := ctx.Deadline()
					got = time.Until(end)
					return nil
				})
				c.SetArgs(of.args)
				if err := c.ExecuteContext(t.Context()); (err != nil) != (of.want == 0) {
					t.Fatal(err)
				}
				if got != of.want {
					t.Errorf("it has %v, want %v", got, of.want)
				}
			})
		})
	}
}
