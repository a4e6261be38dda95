package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"golang.org/x/term"
)

// outputFlag is the -o of commands that answer.
type outputFlag struct {
	Output string `short:"o" help:"What to print on standard output: ${enum}." enum:"table,json" default:"table"`
}

// json reports whether the answer is for programs.
func (o outputFlag) json() bool { return o.Output == "json" }

// tell answers with an object for programs, or with a line for people on w.
func (o outputFlag) tell(t *terminal, w io.Writer, object map[string]any, format string, args ...any) error {
	if o.json() {
		return printJSON(t.out, object)
	}
	_, err := fmt.Fprintf(w, format+"\n", args...)
	return err
}

// printJSON writes one JSON object and a line end.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table is text in columns. An empty cell is shown as a dash.
type table struct {
	head []string
	rows [][]string
}

func newTable(head ...string) *table { return &table{head: head} }

func (t *table) add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		if row[i] = fmt.Sprint(c); row[i] == "" {
			row[i] = "-"
		}
	}
	t.rows = append(t.rows, row)
}

// print writes the table, or what to say when it has no rows.
func (t *table) print(w io.Writer, none string) error {
	if len(t.rows) == 0 {
		_, err := fmt.Fprintln(w, none)
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(t.head, "\t"))
	for _, row := range t.rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}

// onTerminal reports whether people look at what is written.
func onTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
