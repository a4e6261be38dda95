package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"choir.example/internal/plot"
	"choir.example/simulate"
	"choir.example/simulate/partition"
	"choir.example/simulate/report"
)

// simulateReport is `choir simulate report`.
type simulateReport struct {
	outputFlag
	Dirs []string `arg:"" help:"Directories of runs and sweeps, at any depth." placeholder:"DIR" name:"dir" type:"path"`
	Out  string   `help:"Directory to write to. Default: the first DIR." placeholder:"DIR" type:"path"`
}

// Help is what --help explains.
func (simulateReport) Help() string {
	return `Gathers the runs below the directories, of this machine or of others, and writes report.html, which is one file with all that
is in it: curves with the band of their seeds, what was found here beside what was published or found elsewhere, bytes, tables of two keys or of rules
and attacks, settings; an SVG file for each drawing, for papers; results.csv, a line a run. Runs that are not finished are
named and left out.

With -o json standard output is one object with the keys report, csv, figures (paths), setups (a list of setup, seeds,
accuracy, least and most) and unfinished (paths).

Example: choir simulate report sweep-a sweep-b --out all`
}

// Run writes the report.
func (c *simulateReport) Run(t *terminal) error {
	runs, unfinished, err := readRuns(c.Dirs)
	if err != nil {
		return err
	}
	for _, dir := range unfinished {
		fmt.Fprintf(t.err, "left out: the run in %s is not finished\n", dir)
	}
	if len(runs) == 0 {
		return &hinted{fmt.Errorf("no finished run below %s", c.Dirs[0]), "choir simulate run --out DIR and choir simulate sweep --out DIR make them"}
	}
	out := c.Out
	if out == "" {
		out = c.Dirs[0]
	}
	r := report.New(runs)
	files, err := writeReport(out, r)
	if err != nil {
		return err
	}
	if c.json() {
		return printJSON(t.out, map[string]any{
			"report": files.page, "csv": files.table, "figures": files.figures, "setups": setupsFound(r), "unfinished": append([]string{}, unfinished...),
		})
	}
	if err := printSetups(t.out, r); err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.out, "page: %s\n", files.page)
	return err
}

// readRuns reads the finished runs below directories, and names the others.
func readRuns(dirs []string) (runs []report.Run, unfinished []string, err error) {
	seen := map[string]bool{}
	for _, root := range dirs {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			dir := filepath.Dir(path)
			if err != nil || e.IsDir() || e.Name() != experimentName || seen[dir] {
				return err
			}
			seen[dir] = true
			run, err := readRun(dir)
			if run == nil && err == nil {
				unfinished = append(unfinished, dir)
			} else if err == nil {
				runs = append(runs, *run)
			}
			return err
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return runs, unfinished, nil
}

// readRun reads a run; nil if it is not finished.
func readRun(dir string) (*report.Run, error) {
	d := runDir{path: dir}
	r, err := readResult(d.file(resultName))
	if r == nil || err != nil {
		return nil, err
	}
	run, err := d.found(r)
	if err != nil {
		return nil, &hinted{err, fmt.Sprintf("it is altered or damaged: remove %s, and run it again, or move it away", dir)}
	}
	return run, nil
}

// found is what the files of a finished run say.
func (d *runDir) found(r *simulate.Result) (*report.Run, error) {
	var x simulate.Experiment
	if err := readYAML(d.file(experimentName), &x); err != nil {
		return nil, err
	}
	points, err := readPoints(d.file(linesName))
	if err != nil {
		return nil, err
	}
	picture := &partition.Picture{}
	b, err := os.ReadFile(d.file(pictureName))
	if err == nil {
		err = json.Unmarshal(b, picture)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.file(pictureName), err)
	}
	return &report.Run{Experiment: x, Result: r, Points: points, Picture: picture}, nil
}

// reportFiles are the paths of what a report consists of.
type reportFiles struct {
	page, table string
	figures     []string
}

func writeReport(dir string, r *report.Report) (f reportFiles, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return f, err
	}
	var page, table bytes.Buffer
	if err := errors.Join(r.WritePage(&page), r.WriteCSV(&table)); err != nil {
		return f, err
	}
	write := func(name string, body []byte) (path string) {
		path = filepath.Join(dir, name)
		if err == nil {
			err = publish(path, body)
		}
		return path
	}
	f.page, f.table = write(pageName, page.Bytes()), write("results.csv", table.Bytes())
	for _, figure := range slices.Concat(r.Figures(), r.Grids(), r.Partitions()) {
		f.figures = append(f.figures, write(figure.File+".svg", []byte(plot.File(figure.SVG))))
	}
	return f, err
}

// setupFound is a setup of a report, for programs.
type setupFound struct {
	Setup    string   `json:"setup"`
	Seeds    []uint64 `json:"seeds"`
	Accuracy *float64 `json:"accuracy"` // mean over the seeds; null if nothing was measured
	Least    *float64 `json:"least"`
	Most     *float64 `json:"most"`
}

func setupsFound(r *report.Report) []setupFound {
	out := []setupFound{}
	for _, s := range r.Setups {
		f := setupFound{Setup: s.Label}
		for _, run := range s.Runs {
			f.Seeds = append(f.Seeds, run.Result.Seed)
		}
		if a := s.Accuracy(); a.Mean == a.Mean {
			f.Accuracy, f.Least, f.Most = &a.Mean, &a.Least, &a.Most
		}
		out = append(out, f)
	}
	return out
}

// printSetups prints what each setup came to, what was found elsewhere beside it.
func printSetups(w io.Writer, r *report.Report) error {
	tab := newTable("SETUP", "SEEDS", "ACCURACY", "LEAST", "MOST")
	for _, s := range r.Setups {
		a := s.Accuracy()
		tab.add(s.Label, len(s.Runs), number(a.Mean), number(a.Least), number(a.Most))
	}
	if err := tab.print(w, "nothing was run"); err != nil {
		return err
	}
	if n := r.Averages(); n != "" {
		fmt.Fprintf(w, "Accuracy is the mean of the last %s rounds where evaluation.average says so.\n", n)
	}
	if published := r.Published(); len(published) > 0 {
		fmt.Fprintln(w)
		tab := newTable("SETUP", "WHAT", "ELSEWHERE", "HERE", "BY")
		for _, p := range published {
			tab.add(p.Label, p.What, p.Theirs, p.Ours, p.Source)
		}
		if err := tab.print(w, ""); err != nil {
			return err
		}
	}
	for _, text := range slices.Concat(r.Ended(), r.Doubts()) {
		fmt.Fprintln(w, text)
	}
	return nil
}

// number is a share of four digits; empty if there is none.
func number(v float64) string {
	if v != v {
		return ""
	}
	return fmt.Sprintf("%.4f", v)
}
