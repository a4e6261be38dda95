package main

import (
	"fmt"
	"slices"
	"strings"

	"choir.example/simulate"
)

// simulateCommand is `choir simulate`.
type simulateCommand struct {
	Run    simulateRun    `cmd:"" help:"Run an experiment."`
	List   simulateList   `cmd:"" help:"List the experiments that are built in."`
	Show   simulateShow   `cmd:"" help:"Print a built-in experiment as a file to begin with."`
	Sweep  simulateSweep  `cmd:"" help:"Run experiments with many values and seeds."`
	Report simulateReport `cmd:"" help:"Show what runs found, side by side."`
}

// simulateList is `choir simulate list`.
type simulateList struct {
	outputFlag
	Names []string `arg:"" optional:"" name:"name" help:"Only these, also with * for any letters." placeholder:"NAME"`
}

// Help is what --help explains.
func (simulateList) Help() string {
	return `Each experiment has a source, and numbers that the source reports or that a program which is not choir found: they stand
beside choir's own in the table of a run and in reports.

With -o json it is a list of objects with the keys name, source and expected, a list of objects with the key metric:
  accuracy: value, a share; rounds, after which: the mean if there are several, without the key after the last one
  rounds_to: value, the first round at the accuracy level
  claim: what the source says without a number for this task: text alone, no value
and text, which says it in words; with a value from, who found it, and spread, the deviation over seeds, if that is reported.

Example: choir simulate list 'robust-*-alie'`
}

// Run lists.
func (c *simulateList) Run(t *terminal) error {
	type listed struct {
		Name     string              `json:"name"`
		Source   string              `json:"source"`
		Expected []simulate.Expected `json:"expected"`
	}
	var all []listed
	tab := newTable("NAME", "EXPECTED", "SOURCE")
	wanted, err := c.wanted()
	if err != nil {
		return err
	}
	for _, b := range simulate.Builtins() {
		if !slices.Contains(wanted, b.Name) {
			continue
		}
		all = append(all, listed{b.Name, b.Source, append([]simulate.Expected{}, b.Expected...)})
		first := ""
		if len(b.Expected) > 0 {
			first = b.Expected[0].Text
		}
		tab.add(b.Name, first, b.Source)
	}
	if c.json() {
		return printJSON(t.out, all)
	}
	return tab.print(t.out, "none")
}

// wanted are the names to list.
func (c *simulateList) wanted() ([]string, error) {
	all := builtinNames()
	if len(c.Names) == 0 {
		return all, nil
	}
	names, err := matching(c.Names)
	for _, name := range names {
		if !slices.Contains(all, name) {
			return nil, noExperiment(name)
		}
	}
	return names, err
}

// noExperiment is why a name is none.
func noExperiment(name string) error {
	return &hinted{fmt.Errorf("no experiment is called %.60q", name), suggestExperiment(name)}
}

// simulateShow is `choir simulate show`.
type simulateShow struct {
	outputFlag
	Name string `arg:"" help:"A name that choir simulate list shows."`
}

// Help is what --help explains.
func (simulateShow) Help() string {
	return `Prints the experiment as the YAML file that choir simulate run takes. Keys that are not there have their usual values,
which docs/simulate.md lists. With -o json it is the same as one object.

Example: choir simulate show quick > mine.yaml`
}

// Run prints.
func (c *simulateShow) Run(t *terminal) error {
	b, ok := simulate.BuiltinNamed(c.Name)
	if !ok {
		return noExperiment(c.Name)
	}
	if c.json() {
		return printJSON(t.out, b.Experiment)
	}
	text, err := writeYAML(b.Experiment)
	if err != nil {
		return err
	}
	for _, e := range b.Expected {
		fmt.Fprintf(t.out, "# expected: %s\n", strings.TrimSpace(e.Text))
	}
	_, err = t.out.Write(text)
	return err
}
