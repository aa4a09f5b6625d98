// Command web bundles the pages under web/ into internal/dashboard/dist:
//
//	web build   writes the bundle
//	web check   fails if the bundle that is there is another than the sources make, or is too large
//
// The bundle is committed, so that building the server needs neither Node nor a network; web/node_modules holds the pinned packages (npm ci).
package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/evanw/esbuild/pkg/api"
)

// budget is how many bytes all files of the bundle may take together when they are compressed.
const budget = 120_000

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "web:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 || args[0] != "build" && args[0] != "check" {
		return errors.New("usage: web build|check")
	}
	root, err := filepath.Abs("..") // run with go run -C tools
	if err != nil {
		return err
	}
	dist := filepath.Join(root, "internal", "dashboard", "dist")
	files, err := bundle(filepath.Join(root, "web"), dist)
	if err != nil {
		return err
	}
	size := 0
	for _, f := range files {
		n, err := compressed(f.Contents)
		if err != nil {
			return err
		}
		size += n
		switch args[0] {
		case "build":
			if err := os.MkdirAll(dist, 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(f.Path, f.Contents, 0o644); err != nil {
				return err
			}
			fmt.Printf("%-24s %7d bytes, %6d compressed\n", filepath.Base(f.Path), len(f.Contents), n)
		case "check":
			have, err := os.ReadFile(f.Path)
			if err != nil {
				return err
			}
			if !bytes.Equal(have, f.Contents) {
				return fmt.Errorf("internal/dashboard/dist/%s is not what web/ makes: run make web and commit it", filepath.Base(f.Path))
			}
		}
	}
	if size > budget {
		return fmt.Errorf("the bundle takes %d bytes compressed, and %d are allowed", size, budget)
	}
	return nil
}

func bundle(web, dist string) ([]api.OutputFile, error) {
	result := api.Build(api.BuildOptions{
		AbsWorkingDir: web,
		EntryPointsAdvanced: []api.EntryPoint{
			{InputPath: "src/main.tsx", OutputPath: "app"},
			{InputPath: "src/element.ts", OutputPath: "eventhose-portal"},
		},
		Outdir:            dist,
		Bundle:            true,
		MinifyWhitespace:  true,
		MinifyIdentifiers: true,
		MinifySyntax:      true,
		Format:            api.FormatESModule,
		Target:            api.ES2022,
		JSX:               api.JSXAutomatic,
		JSXImportSource:   "preact",
		LegalComments:     api.LegalCommentsNone,
		Charset:           api.CharsetUTF8,
	})
	if len(result.Errors) > 0 {
		return nil, errors.New(strings.Join(api.FormatMessages(result.Errors, api.FormatMessagesOptions{}), ""))
	}
	return result.OutputFiles, nil
}

func compressed(b []byte) (int, error) {
	var z bytes.Buffer
	w, err := gzip.NewWriterLevel(&z, gzip.BestCompression)
	if err != nil {
		return 0, err
	}
	if _, err := w.Write(b); err != nil {
		return 0, err
	}
	if err := w.Close(); err != nil {
		return 0, err
	}
	return z.Len(), nil
}
