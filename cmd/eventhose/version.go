package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Example: "  eventhose version -o json", Args: args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version string `json:"version"`
				Commit  string `json:"commit,omitempty"`
				Go      string `json:"go"`
				Store   string `json:"store"`
			}{Version: p.version, Go: runtime.Version(), Store: "pebble"}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Commit = s.Value[:min(12, len(s.Value))]
					}
				}
			}
			return p.print(v, func(w io.Writer) {
				commit := ""
				if v.Commit != "" {
					commit = v.Commit + ", "
				}
				fmt.Fprintf(w, "eventhose %s (%s%s, %s)\n", v.Version, commit, v.Go, v.Store)
			})
		}}
}

func (p *program) completionCommand() *cobra.Command {
	return &cobra.Command{Use: "completion SHELL", Short: "Print the completion script for bash, zsh, fish or powershell",
		Example: "  eventhose completion bash > /etc/bash_completion.d/eventhose", Args: args(1, 1), ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(c *cobra.Command, args []string) error {
			root := c.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(p.out, true)
			case "zsh":
				return root.GenZshCompletion(p.out)
			case "fish":
				return root.GenFishCompletion(p.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(p.out)
			}
			return &usageError{what: "the shell must be bash, zsh, fish or powershell", fix: "eventhose completion bash"}
		}}
}
