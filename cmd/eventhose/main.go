// Command eventhose is the server, its operator's tools and a client of its HTTP API, in one binary.
//
// The first signal asks it to finish what it is doing; the second ends that too; the third kills.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, cut := signals()
	p := &program{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.LookupEnv, cut: cut, version: version}
	os.Exit(p.run(ctx, os.Args[1:]))
}

// signals answers a context that the first signal ends, and a channel that the second closes.
func signals() (context.Context, <-chan struct{}) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cut := make(chan struct{})
	got := make(chan os.Signal, 2)
	signal.Notify(got, syscall.SIGINT, syscall.SIGTERM)
	go func() { // lives as long as the process
		if first := <-got; first == syscall.SIGTERM {
			cancel(errTerminated)
		} else {
			cancel(errInterrupted)
		}
		<-got
		close(cut)
		signal.Stop(got)
	}()
	return ctx, cut
}
