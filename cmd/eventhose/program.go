package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// program is what every command works with: the streams, the environment, and the options of all commands.
type program struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) (string, bool)
	// cut is closed when the user does not want to wait for a clean end any more.
	cut     <-chan struct{}
	version string

	output string
	conn   connection
	// running says that flags and arguments were good: what fails before is bad usage.
	running bool
}

// run executes one command line and answers the exit code.
func (p *program) run(ctx context.Context, args []string) int {
	root := p.root()
	root.SetArgs(args)
	root.SetIn(p.in)
	root.SetOut(p.out)
	root.SetErr(p.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if errors.Is(err, errEnded) {
		return exitInterrupted
	}
	if !p.running {
		p.output = p.wantedOutput(args)
		if !errors.As(err, new(*usageError)) {
			err = &usageError{what: err.Error(), fix: "eventhose --help"}
		}
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errInterrupted
	}
	return p.report(err)
}

// wantedOutput reads --output out of a command line that could not be parsed, so that its error has the form that was
// asked for.
func (p *program) wantedOutput(args []string) string {
	wanted, _ := p.env("EVENTHOSE_OUTPUT")
	for i, arg := range args {
		if (arg == "-o" || arg == "--output") && i+1 < len(args) {
			wanted = args[i+1]
		}
		for _, prefix := range []string{"--output=", "-o=", "-o"} {
			if value, ok := strings.CutPrefix(arg, prefix); ok && value != "" {
				wanted = value
				break
			}
		}
	}
	if wanted != "json" && wanted != "jsonl" {
		return "text"
	}
	return wanted
}

// The groups that --help shows.
const (
	groupServer  = "server"
	groupEvents  = "events"
	groupOffline = "offline"
)

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "eventhose",
		Short: "One durable, ordered event log per tenant, with signed webhooks out",
		Long: `One durable, ordered event log per tenant, with signed webhooks out.

stdout is data, stderr everything else. Every flag has an environment variable, which its help names; with _FILE
appended, that variable names a file that holds the value. Exit codes: 0 ok, 1 failure, 2 usage or refused input,
3 not authenticated or not allowed, 4 not found or gone, 5 conflict or limit, 6 no server, 7 expectation not met,
124 time-out, 130 interrupted.`,
		Example:           "  eventhose dev\n  eventhose trigger order.paid --data '{\"amount\": 4200}' --wait",
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		PersistentPreRunE: p.prepare,
	}
	root.AddGroup(&cobra.Group{ID: groupServer, Title: "Server:"}, &cobra.Group{ID: groupEvents, Title: "Through a server:"},
		&cobra.Group{ID: groupOffline, Title: "On its own:"})
	root.PersistentFlags().StringVarP(&p.output, "output", "o", "text", "how to print: text, json or jsonl")
	in := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	in(groupServer, p.devCommand(), p.serveCommand(), p.backupCommand(), p.restoreCommand(), p.migrateCommand(), p.copyCommand(), p.doctorCommand(), p.healthCommand(), p.benchCommand())
	in(groupEvents, p.listenCommand(), p.triggerCommand(), p.tailCommand(), p.eventsCommand(), p.subscriptionsCommand(), p.attemptsCommand(), p.parkedCommand(), p.replayCommand(), p.resendCommand(),
		p.sourcesCommand(), p.inboxCommand(), p.inspectCommand(), p.statsCommand(), p.tenantsCommand(), p.keysCommand(), p.portalCommand(), p.auditCommand())
	in(groupOffline, p.verifyCommand(), p.signCommand(), p.versionCommand(), p.completionCommand())
	root.SetHelpCommand(helpCommand())
	root.SetHelpCommandGroupID(groupOffline)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		fix := c.CommandPath() + " --help"
		if unknown := (*pflag.NotExistError)(nil); errors.As(err, &unknown) {
			if near := flagsNear(c, unknown.GetSpecifiedName()); len(near) > 0 {
				fix = strings.Join(near, " or ") + "; or see " + fix
			}
		}
		return &usageError{what: err.Error(), fix: fix}
	})
	tellEnvironment(root)
	return root
}

// flagsNear answers the flags of a command that are spelt much like a name, by the measure that cobra has for commands.
func flagsNear(c *cobra.Command, name string) (near []string) {
	other := map[string]string{"expression": "filter", "filter": "expression"} // one or the other, by the command
	all := &cobra.Command{SuggestionsMinimumDistance: 2}
	c.Flags().VisitAll(func(f *pflag.Flag) {
		flag := &cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}}
		if o := other[f.Name]; o != "" {
			flag.SuggestFor = []string{o}
		}
		all.AddCommand(flag)
	})
	for _, s := range all.SuggestionsFor(name) {
		near = append(near, "--"+s)
	}
	return near
}

// helpCommand is cobra's, but that a command which does not exist is bad usage.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND...]",
		Short: "Help about any command",
		ValidArgsFunction: func(c *cobra.Command, args []string, begun string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
			about, _, err := c.Root().Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			for _, sub := range about.Commands() {
				if sub.IsAvailableCommand() && strings.HasPrefix(sub.Name(), begun) {
					names = append(names, cobra.CompletionWithDesc(sub.Name(), sub.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			about, rest, err := c.Root().Find(args)
			if err == nil && len(rest) > 0 {
				err = fmt.Errorf("unknown command %q for %s", rest[0], about.CommandPath())
			}
			if err != nil {
				return &usageError{what: err.Error(), fix: about.CommandPath() + " --help"}
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// group makes a command that only holds others.
func group(use, short, example string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Example: example, RunE: func(c *cobra.Command, args []string) error {
		what := "a command is missing after " + c.CommandPath()
		if len(args) > 0 {
			what = fmt.Sprintf("unknown command %q for %s", args[0], c.CommandPath())
		}
		return &usageError{what: what, fix: c.CommandPath() + " --help"}
	}}
	c.AddCommand(commands...)
	return c
}

// args checks how many arguments there are. At most -1 means any number.
func args(atLeast, atMost int) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		switch {
		case len(given) < atLeast:
			return &usageError{what: "an argument is missing: " + c.UseLine(), fix: c.CommandPath() + " --help"}
		case atMost >= 0 && len(given) > atMost:
			return &usageError{what: fmt.Sprintf("unexpected argument %q", given[atMost]), fix: c.CommandPath() + " --help"}
		}
		return nil
	}
}

// environment answers the variable of a flag. The options of the server and of the connection to it have short
// names, those of one command carry the command's name, so that EVENTHOSE_DATA is never an event's data.
func environment(c *cobra.Command, f *pflag.Flag) string {
	snake := strings.NewReplacer("-", "_", " ", "_")
	if name := f.Annotations["environment"]; name != nil {
		return name[0]
	}
	if f.Name == "output" {
		return "EVENTHOSE_OUTPUT"
	}
	return strings.ToUpper(snake.Replace(c.CommandPath() + " " + f.Name))
}

// variable names a flag's environment variable.
func variable(fs *pflag.FlagSet, flag, name string) {
	f := fs.Lookup(flag)
	if f.Annotations == nil {
		f.Annotations = map[string][]string{}
	}
	f.Annotations["environment"] = []string{name}
}

// tellEnvironment adds each flag's variable to its help.
func tellEnvironment(c *cobra.Command) {
	tell := func(f *pflag.Flag) {
		if f.Name != "help" {
			f.Usage += " [$" + environment(c, f) + "]"
		}
	}
	c.LocalNonPersistentFlags().VisitAll(tell)
	c.PersistentFlags().VisitAll(tell)
	for _, sub := range c.Commands() {
		tellEnvironment(sub)
	}
}

// maxFileValue bounds what a NAME_FILE may hold, in bytes.
const maxFileValue = 64 << 10

// prepare fills what no flag gave from the environment and checks what all commands share.
func (p *program) prepare(c *cobra.Command, _ []string) error {
	var err error
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if err != nil || f.Changed || f.Name == "help" {
			return
		}
		name := environment(c, f)
		value, from, ok, readErr := p.lookup(name)
		if readErr != nil {
			err = readErr
		} else if ok && c.Flags().Set(f.Name, value) != nil {
			// What pflag says would show the value, which may be a secret.
			err = &usageError{what: from + " is not a value for --" + f.Name, fix: c.CommandPath() + " --help"}
		}
	})
	if err != nil {
		return err
	}
	if !slices.Contains([]string{"text", "json", "jsonl"}, p.output) {
		p.output = "text"
		return &usageError{what: "--output must be text, json or jsonl", fix: c.CommandPath() + " -o json"}
	}
	p.running = true
	return nil
}

// lookup reads a variable, or the file that the variable with _FILE appended names. An empty one counts as unset.
func (p *program) lookup(name string) (value, from string, ok bool, err error) {
	value, _ = p.env(name)
	file, _ := p.env(name + "_FILE")
	switch {
	case file == "":
		return value, name, value != "", nil
	case value != "":
		return "", "", false, &usageError{what: name + " and " + name + "_FILE are both set", fix: "unset one of them"}
	}
	f, err := os.Open(file)
	if err != nil {
		return "", "", false, &usageError{what: fmt.Sprintf("%s_FILE: %v", name, err), fix: "name a file that can be read"}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFileValue+1))
	if err == nil && len(b) > maxFileValue {
		err = fmt.Errorf("%s is larger than %d bytes", file, maxFileValue)
	}
	if err != nil {
		return "", "", false, &usageError{what: fmt.Sprintf("%s_FILE: %v", name, err), fix: "name a file that holds just the value"}
	}
	return strings.TrimRight(string(b), "\r\n"), name + "_FILE", true, nil
}

// input reads a flag's "@file", "-" for stdin, or the text itself, at most limit bytes.
func (p *program) input(flag, value string, limit int) ([]byte, error) {
	var r io.Reader
	switch {
	case value == "-":
		r = bufio.NewReader(p.in)
	case strings.HasPrefix(value, "@"):
		f, err := os.Open(value[1:])
		if err != nil {
			return nil, &usageError{what: fmt.Sprintf("--%s: %v", flag, err), fix: "name a file that can be read"}
		}
		defer f.Close()
		r = f
	default:
		return []byte(value), nil
	}
	b, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("reading --%s: %w", flag, err)
	}
	if len(b) > limit {
		return nil, &usageError{what: fmt.Sprintf("--%s is larger than %d bytes", flag, limit)}
	}
	return b, nil
}
