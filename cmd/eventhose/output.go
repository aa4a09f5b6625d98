package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/eventhose/eventhose/client"
)

// print writes one thing: as JSON on several lines, as JSON on one, or with text.
func (p *program) print(v any, text func(w io.Writer)) error {
	switch p.output {
	case "json", "jsonl":
		return p.printJSON(v)
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	text(w)
	return w.Flush()
}

func (p *program) printJSON(v any) error {
	indent := ""
	if p.output == "json" {
		indent = "  "
	}
	return writeJSON(p.out, v, indent)
}

func writeJSON(w io.Writer, v any, indent string) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	return e.Encode(v)
}

// printList writes one page of a list, which in text has a header and says on stderr how to go on.
func printList[T any](p *program, l client.List[T], header string, row func(T) []string) error {
	return printPage(p, l, "--after", header, row)
}

// printPage is printList of a list that goes on by another flag.
func printPage[T any](p *program, l client.List[T], onBy, header string, row func(T) []string) error {
	switch p.output {
	case "json":
		next := &l.Next
		if l.Next == "" {
			next = nil
		}
		if l.Data == nil {
			l.Data = []T{}
		}
		return p.printJSON(struct {
			Data []T     `json:"data"`
			Next *string `json:"next"`
		}{l.Data, next})
	case "jsonl":
		for _, v := range l.Data {
			if err := p.printJSON(v); err != nil {
				return err
			}
		}
	default:
		rows := make([][]string, len(l.Data))
		for i, v := range l.Data {
			rows[i] = row(v)
		}
		if err := p.printTable(header, rows); err != nil {
			return err
		}
	}
	if l.Next != "" {
		fmt.Fprintf(p.err, "more: %s %s\n", onBy, l.Next)
	}
	return nil
}

func (p *program) printTable(header string, rows [][]string) error {
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	if header != "" {
		fmt.Fprintln(w, strings.Join(strings.Fields(header), "\t"))
	}
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// block writes "name value" lines, leaving out those without a value.
func block(w io.Writer, pairs ...any) {
	for i := 0; i+1 < len(pairs); i += 2 {
		if s := oneLine(fmt.Sprint(pairs[i+1])); s != "" {
			fmt.Fprintf(w, "%s\t%s\n", pairs[i], s)
		}
	}
}

// oneLine keeps what others wrote from moving the cursor about or beginning a line of its own.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
}

// stamp writes a time, or "" for none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// took writes a duration as people read it.
func took(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// plural is "1 event", or "3 events".
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
