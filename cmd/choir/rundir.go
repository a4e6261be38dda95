package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"choir.example/internal/lockdir"
	"choir.example/privacy/seal"
	"choir.example/simulate"
	"choir.example/simulate/report"
)

// runDir is the directory of one run: the experiment as it was run, its rounds, and at the end its result and a page. Until
// then it has a snapshot, which --resume goes on from, and in fidelity system the coordinators and nodes, which it goes on with.
// Every file is there whole or not at all.
type runDir struct {
	path   string
	system bool // the run's fidelity
	again  bool // it was there before
	points []simulate.Point
	saved  time.Time     // when there was a snapshot, or the run began
	cost   time.Duration // of writing it
	unlock func()
}

// The files of a run.
const (
	experimentName = "experiment.yaml"
	snapshotName   = "snapshot"
	linesName      = "rounds.jsonl"
	csvName        = "rounds.csv"
	pageName       = "report.html"
	resultName     = "result.json"
	pictureName    = "partition.json"
	lockName       = ".lock"
	federationName = "federation"
)

// How often a snapshot is written: not oftener than so, and so seldom that it takes no more than a fiftieth of the time.
const (
	saveAfter = 250 * time.Millisecond
	saveShare = 50
)

// openRunDir begins a run in a directory, or finds out where the one in it stands: done is its result, start its last
// snapshot; both are nil if it has none. x has the run's seed alone.
func openRunDir(path string, x *simulate.Experiment, fidelity simulate.Fidelity, resume bool) (d *runDir, start *simulate.Snapshot, done *simulate.Result, err error) {
	want, err := runText(x, fidelity)
	if err != nil {
		return nil, nil, nil, err
	}
	d = &runDir{path: path, system: fidelity == simulate.System, saved: time.Now(), unlock: func() {}}
	have, err := os.ReadFile(d.file(experimentName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return d, nil, nil, d.begin(want)
	case err != nil:
		return nil, nil, nil, err
	case !resume:
		return nil, nil, nil, d.taken()
	case !bytes.Equal(have, want):
		return nil, nil, nil, &hinted{fmt.Errorf("%s has another run than this", path),
			fmt.Sprintf("compare %s with what choir was told now, or name another directory", d.file(experimentName))}
	}
	if done, err = readResult(d.file(resultName)); err != nil {
		return nil, nil, nil, err
	}
	if done != nil {
		return d, nil, done, d.tidy()
	}
	if err := d.lock(); err != nil {
		return nil, nil, nil, err
	}
	d.again = true
	if start, err = d.restore(); err != nil {
		d.unlock()
	}
	return d, start, nil, err
}

// taken is why no run begins in the directory.
func (d *runDir) taken() error {
	return &hinted{fmt.Errorf("%s has a run already", d.path), "add --resume to go on with it, or name another directory"}
}

// underWay reports whether a directory has a run that is not finished.
func underWay(path string) bool {
	_, finished := os.Stat(filepath.Join(path, resultName))
	return begun(path) && finished != nil
}

// begun reports whether a directory has a run.
func begun(path string) bool {
	_, err := os.Stat(filepath.Join(path, experimentName))
	return err == nil
}

// runText is all that a run depends on, as a file: the experiment with the run's seed, and in a comment how much of it is real.
func runText(x *simulate.Experiment, fidelity simulate.Fidelity) ([]byte, error) {
	text, err := writeYAML(*x)
	return append([]byte(fmt.Sprintf("# run with --fidelity %s\n", fidelity)), text...), err
}

func (d *runDir) file(name string) string { return filepath.Join(d.path, name) }

// begin makes the directory of a new run.
func (d *runDir) begin(experiment []byte) error {
	if entries, err := os.ReadDir(d.path); err == nil && slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() != lockName }) {
		return &hinted{fmt.Errorf("%s is not empty, and has no run", d.path), "name a directory that is empty or does not exist"}
	}
	err := os.MkdirAll(d.path, 0o755)
	if err == nil {
		err = d.lock()
	}
	if err != nil {
		return err
	}
	if _, none := os.Stat(d.file(experimentName)); none == nil { // somebody was faster
		err = d.taken()
	} else {
		err = d.write(experimentName, experiment)
	}
	if err != nil {
		d.unlock()
	}
	return err
}

// lock keeps other processes out until unlock, and clears away what a killed one had not finished.
func (d *runDir) lock() error {
	unlock, err := lockdir.Lock(d.file(lockName))
	if errors.Is(err, lockdir.ErrTaken) {
		return &hinted{fmt.Errorf("the run in %s is under way: %w", d.path, err), "wait for it or stop it, or name another directory"}
	}
	if err != nil {
		return err
	}
	d.unlock = unlock
	for _, pattern := range []string{".new-*", "." + snapshotName + "-*"} {
		left, _ := filepath.Glob(d.file(pattern)) // the patterns are fine
		for _, name := range left {
			if err := os.Remove(name); err != nil {
				unlock()
				return err
			}
		}
	}
	return nil
}

// abandon leaves nothing of a run that was refused before its first round.
func (d *runDir) abandon() error {
	if d.again {
		return nil
	}
	if err := d.remove(experimentName, lockName); err != nil {
		return err
	}
	return os.Remove(d.path)
}

// remove removes those of the files that are there.
func (d *runDir) remove(names ...string) error {
	for _, name := range names {
		if err := os.Remove(d.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// standing says where a run goes on.
func (d *runDir) standing(start *simulate.Snapshot, rounds int) string {
	switch {
	case start != nil:
		return fmt.Sprintf("goes on after round %d of %d", start.Round, rounds)
	case d.system && simulate.Founded(d.file(federationName)):
		return "goes on with its coordinators and nodes"
	case d.system:
		return "there are no coordinators and nodes yet, so it begins anew"
	}
	return "there is no snapshot yet, so it begins anew"
}

// restore reads the snapshot, and the rounds until it. Where the coordinators and nodes are gone that it is of, it is of no use.
func (d *runDir) restore() (*simulate.Snapshot, error) {
	if d.system && !simulate.Founded(d.file(federationName)) {
		return nil, nil
	}
	f, err := os.Open(d.file(snapshotName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // stopped before the first one
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cure := fmt.Sprintf("remove %s and %s: the run then begins anew, and comes to the same", d.file(snapshotName), d.file(linesName))
	s, err := simulate.ReadSnapshot(f)
	if err != nil {
		return nil, &hinted{fmt.Errorf("%s: %w", f.Name(), err), cure}
	}
	if d.points, err = readPoints(d.file(linesName)); err != nil {
		return nil, &hinted{err, cure}
	}
	if len(d.points) < s.Round {
		return nil, &hinted{fmt.Errorf("%s ends after round %d, and the snapshot is of round %d", d.file(linesName), len(d.points), s.Round), cure}
	}
	d.points = d.points[:s.Round]
	return s, nil
}

// add takes in a round.
func (d *runDir) add(p simulate.Point) { d.points = append(d.points, p) }

// keep writes a snapshot if it is time.
func (d *runDir) keep(s *simulate.Snapshot) error {
	now := time.Now()
	if since := now.Sub(d.saved); since < max(saveAfter, saveShare*d.cost) {
		return nil
	}
	if err := d.writeRounds(); err != nil { // first: a snapshot is not ahead of the rounds
		return err
	}
	if err := d.writeSnapshot(s); err != nil {
		return err
	}
	d.saved = time.Now()
	d.cost = d.saved.Sub(now)
	return nil
}

// writeSnapshot puts the snapshot in the place of the one before once it is whole. It may be as large as all that nodes
// remember, and is not held in memory.
func (d *runDir) writeSnapshot(s *simulate.Snapshot) error {
	f, err := os.CreateTemp(d.path, "."+snapshotName+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing to remove once it is renamed
	w := bufio.NewWriterSize(f, 1<<20)
	_, err = s.WriteTo(w)
	if err == nil {
		err = errors.Join(w.Flush(), f.Sync())
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), d.file(snapshotName))
}

func (d *runDir) writeRounds() error {
	var b bytes.Buffer
	if err := simulate.WriteJSONLines(&b, d.points); err != nil {
		return err
	}
	return d.write(linesName, b.Bytes())
}

// finish writes what came of the run. The result is last: who has it has all.
func (d *runDir) finish(run report.Run) error {
	run.Result.Report = d.file(pageName)
	if err := d.writeRounds(); err != nil {
		return err
	}
	var table, page, result, picture bytes.Buffer
	err := errors.Join(simulate.WriteCSV(&table, d.points), printJSON(&result, run.Result), printJSON(&picture, run.Picture),
		report.New([]report.Run{run}).WritePage(&page))
	for _, f := range []struct {
		name string
		body []byte
	}{{csvName, table.Bytes()}, {pictureName, picture.Bytes()}, {pageName, page.Bytes()}, {resultName, result.Bytes()}} {
		if err == nil {
			err = d.write(f.name, f.body)
		}
	}
	if err != nil {
		return err
	}
	return d.clear()
}

// clear removes what a run that is over does not need.
func (d *runDir) clear() error {
	if err := os.RemoveAll(d.file(federationName)); err != nil {
		return err
	}
	return d.remove(snapshotName, lockName)
}

// tidy clears where a run was killed after it was over.
func (d *runDir) tidy() error {
	if _, err := os.Stat(d.file(lockName)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := d.lock(); err != nil {
		return err
	}
	return d.clear()
}

// write writes a file that everybody may read.
func (d *runDir) write(name string, body []byte) error { return publish(d.file(name), body) }

// publish writes a whole file that everybody may read.
func publish(path string, body []byte) error {
	if err := seal.WriteFile(path, body); err != nil {
		return err
	}
	return os.Chmod(path, 0o644)
}

// readResult reads a result; nil if there is none.
func readResult(path string) (*simulate.Result, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &simulate.Result{}
	err = json.Unmarshal(b, r)
	if err == nil && r.Name == "" {
		err = errors.New("there is no result in it")
	}
	if err != nil {
		return nil, &hinted{fmt.Errorf("%s: %w", path, err), "it was not written by choir, or altered: remove it, and run with --resume"}
	}
	return r, nil
}

// readPoints reads the rounds of a run.
func readPoints(path string) ([]simulate.Point, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return simulate.ReadJSONLines(f, path)
}
