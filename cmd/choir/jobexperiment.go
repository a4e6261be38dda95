package main

import (
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"choir.example/simulate"
)

// An experiment's file is a job's file, too: its sections of the algorithm are taken as they are, and of the others what a
// federation has as well. Its data, partition and evaluation are the simulation's: nodes have their own.

// ofExperiment is the key for which a job's file was refused, if experiments have it; empty otherwise.
func ofExperiment(err error) string {
	m := noSuchKey.FindStringSubmatch(fmt.Sprint(err))
	if m == nil || !slices.Contains(keysOf(reflect.TypeFor[simulate.Experiment]()), m[1]) {
		return ""
	}
	return m[1]
}

// readExperimentJob reads the job that an experiment's file describes, after a job's file was refused for that key. It tells
// what of the file has no place in a job.
func readExperimentJob(path, key string, refused error, talk io.Writer) (j jobFile, err error) {
	x, err := readExperiment(path)
	if m := noSuchKey.FindStringSubmatch(fmt.Sprint(err)); m != nil && slices.Contains(keysOf(reflect.TypeFor[jobFile]()), m[1]) {
		return j, &hinted{refused, fmt.Sprintf("%s is for experiments' files, and %s for jobs'", key, m[1])}
	}
	if err == nil {
		err = here(&x)
	}
	if err != nil {
		return j, err
	}
	if j, err = jobOf(&x); err != nil {
		return j, fmt.Errorf("%s: %w", inSection(path, err.Error(), simulate.Experiment{}), err)
	}
	if left := simulated(x); len(left) > 0 {
		_, err = fmt.Fprintf(talk, "%s is an experiment's: left out is what only a simulation has, %s\n", path, strings.Join(left, ", "))
	}
	return j, err
}

// jobOf is the job that an experiment describes. Its errors begin with the section.
func jobOf(x *simulate.Experiment) (jobFile, error) {
	j := defaultJob()
	j.Name, j.Schema = x.Name, x.Data.Schema
	j.Architecture, j.Local, j.Strategy, j.Robust, j.Compression, j.Privacy = x.Architecture, x.Local, x.Strategy, x.Robust, x.Compression, x.Privacy
	j.Rounds = uint64(max(roundsOf(x), 0)) // 0 is refused as in a job's file
	if len(x.Seeds) > 0 {
		j.Seed = x.Seeds[0]
	}
	if x.Cohort.Share != 0 {
		return j, fmt.Errorf("cohort: share is %v, and a file cannot know of how many nodes: want nodes", x.Cohort.Share)
	}
	percent := 100 * x.Fleet.OverSelection
	if whole := math.Round(percent); math.Abs(percent-whole) > 1e-9 {
		return j, fmt.Errorf("fleet: over_selection is %v, and a job's is in whole percent: want %v or %v", x.Fleet.OverSelection, math.Floor(percent)/100, math.Ceil(percent)/100)
	}
	for _, n := range []struct {
		field string
		value float64
		into  *uint32
	}{
		{"cohort: nodes", float64(x.Cohort.Nodes), &j.Goal}, {"fleet: least", float64(x.Fleet.Least), &j.MinimumCohort},
		{"fleet: over_selection", math.Round(percent), &j.OverSelection},
	} {
		if !(n.value >= 0 && n.value <= 1<<16) {
			return j, fmt.Errorf("%s is %v, out of range", n.field, n.value)
		}
		if n.value > 0 {
			*n.into = uint32(n.value)
		}
	}
	return j, nil
}

// ofJobs are the keys of a job that an experiment has by other names.
var ofJobs = regexp.MustCompile(`\b(goal|minimum_cohort|over_selection_percent)\b`)

// inExperimentsWords says what the keys of a job are called in an experiment's file.
func inExperimentsWords(err error) error {
	if !ofJobs.MatchString(err.Error()) {
		return err
	}
	return &hinted{err, "in an experiment's file goal is cohort.nodes; minimum_cohort is fleet.least, 2 where it is left out; over_selection_percent is fleet.over_selection"}
}

// simulated are the sections of an experiment that say what no job can.
func simulated(x simulate.Experiment) (sections []string) {
	x.Fleet.Least, x.Fleet.OverSelection, x.Data.Schema = 0, 0, ""
	for _, s := range []struct {
		name    string
		section any
	}{{"data", x.Data}, {"partition", x.Partition}, {"fleet", x.Fleet}, {"target", x.Target}, {"evaluation", x.Evaluation}, {"cohort: draw", x.Cohort.Draw}} {
		if !reflect.ValueOf(s.section).IsZero() {
			sections = append(sections, s.name)
		}
	}
	return sections
}
