package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

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
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(printableJSON(b.Bytes()))
	return err
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

// isControl reports whether a terminal may take a character for more than something to show: it moves the cursor about, or begins
// a line or a command.
func isControl(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029'
}

// oneLine keeps what others wrote from moving the cursor about or beginning a line of its own.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if isControl(r) {
			return ' '
		}
		return r
	}, s)
}

// printableText is what a stranger sent, line by line.
func printableText(b []byte) string {
	lines := strings.Split(strings.ToValidUTF8(string(b), "?"), "\n")
	for i := range lines {
		lines[i] = oneLine(lines[i])
	}
	return strings.Join(lines, "\n")
}

// printableJSON is the same JSON with such characters escaped. Outside strings there are none but line breaks.
func printableJSON(b []byte) []byte {
	escape := func(r rune) bool { return isControl(r) && r != '\n' }
	if bytes.IndexFunc(b, escape) < 0 {
		return b
	}
	escaped := make([]byte, 0, len(b)+64)
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if escape(r) {
			escaped = fmt.Appendf(escaped, `\u%04x`, r)
		} else {
			escaped = append(escaped, b[:n]...)
		}
		b = b[n:]
	}
	return escaped
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
