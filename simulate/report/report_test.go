package report

import (
	"bytes"
	"encoding/csv"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"

	"choir.example/internal/plot"
	"choir.example/simulate"
	"choir.example/simulate/partition"
)

// run is a run of an experiment with accuracies in rounds 1, 2 and so on, and a node that sends ten bytes a round.
func run(x simulate.Experiment, seed uint64, accuracies ...float64) Run {
	r := &simulate.Result{Name: x.Name, Seed: seed, Fidelity: simulate.Math, Rounds: len(accuracies), Seconds: 1.5, ModelDigest: fmt.Sprint("digest", seed)}
	var points []simulate.Point
	for i, a := range accuracies {
		m := simulate.Measured{Accuracy: a, Loss: 1 - a}
		r.Final = m
		r.Series = append(r.Series, simulate.Measurement{Round: i + 1, Measured: m})
		points = append(points, simulate.Point{Round: i + 1, Accuracy: a, Loss: 1 - a, Sent: 10})
	}
	return Run{x, r, points, &partition.Picture{Examples: []int{3, 1}, Labels: [][]int{{3, 0}, {0, 1}}}}
}

// two is an experiment with two keys that differ.
func two(rate float64, epochs int) simulate.Experiment {
	x := simulate.Experiment{Name: "two"}
	x.Local.LearningRate, x.Local.Epochs = rate, epochs
	return x
}

func TestSeedsAreOneSetup(t *testing.T) {
	x, elsewhere := two(.1, 1), two(.1, 1)
	x.Seeds, x.Data.Path = []uint64{0}, "/here"
	elsewhere.Seeds, elsewhere.Data.Path = []uint64{1}, "/there"
	r := New([]Run{run(elsewhere, 1, .2, .6), run(x, 0, .4, .5), run(two(.3, 1), 0, .1)})
	if len(r.Setups) != 2 || r.Setups[0].Label != "two learning_rate=0.1" || r.Setups[1].Label != "two learning_rate=0.3" {
		t.Fatalf("%d setups: %+v", len(r.Setups), r.Setups)
	}
	s := r.Setups[0]
	if a := s.Accuracy(); len(s.Runs) != 2 || math.Abs(a.Mean-.55) > 1e-12 || a.Least != .5 || a.Most != .6 || s.Seeds() != "0, 1" {
		t.Errorf("accuracy %+v, seeds %s", a, s.Seeds())
	}
	l := s.curve(accuracyOf)
	want := plot.Line{X: []float64{1, 2}, Y: []float64{.3, .55}, Low: []float64{.2, .5}, High: []float64{.4, .6}}
	for i := range want.X {
		if l.X[i] != want.X[i] || math.Abs(l.Y[i]-want.Y[i]) > 1e-12 || l.Low[i] != want.Low[i] || l.High[i] != want.High[i] {
			t.Errorf("curve %+v, want %+v", l, want)
		}
	}
	if sent := s.sentUntil([]float64{1, 2}, 10); sent[0] != 1 || sent[1] != 2 {
		t.Errorf("sent %v, want 1 and 2 tens", sent)
	}
}

// Where single rounds jump an experiment asks for the mean of several, and the page says so.
func TestLastRoundsAreAveraged(t *testing.T) {
	x := two(.1, 1)
	x.Evaluation.Average = 2
	r := New([]Run{run(x, 0, .9, .5, .7)})
	if a := r.Setups[0].Accuracy(); math.Abs(a.Mean-.6) > 1e-12 {
		t.Errorf("accuracy %v, want the mean of .5 and .7", a.Mean)
	}
	for average, want := range map[int]bool{0: false, 1: false, 2: true} {
		x.Evaluation.Average = average
		var page strings.Builder
		if err := New([]Run{run(x, 0, .9, .5, .7)}).WritePage(&page); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(page.String(), "or the mean of the last 2 rounds"); got != want {
			t.Errorf("average %d: the page says so: %v", average, got)
		}
	}
}

// A run that is there twice counts once; if the two differ, the report says so.
func TestRunTwice(t *testing.T) {
	a, b := run(two(.1, 1), 0, .5), run(two(.1, 1), 0, .5)
	if r := New([]Run{a, b}); len(r.Setups[0].Runs) != 1 || r.Doubts() != nil {
		t.Errorf("%d runs, %v", len(r.Setups[0].Runs), r.Doubts())
	}
	b.Result.ModelDigest = "another"
	if r := New([]Run{a, b}); len(r.Setups[0].Runs) != 1 || len(r.Doubts()) != 1 {
		t.Errorf("%d runs, %v", len(r.Setups[0].Runs), r.Doubts())
	}
}

// Two keys that differ make a table, in order of their values, with gaps where nothing was run.
func TestCross(t *testing.T) {
	r := New([]Run{run(two(.3, 2), 0, .9), run(two(.03, 10), 0, .5), run(two(.3, 10), 0, .7), run(two(.03, 2), 0, .6), run(two(10, 2), 0, .5)})
	all := r.Crosses()
	if len(all) != 1 {
		t.Fatalf("%d tables", len(all))
	}
	c := all[0]
	if fmt.Sprint(c.RowKey, c.Rows, c.ColumnKey, c.Columns) != "local.epochs[2 10]local.learning_rate[0.03 0.3 10]" {
		t.Fatalf("%+v", c)
	}
	if c.Cells[0][1].Text != "90.0" || c.Cells[0][1].Share != 100 || c.Cells[1][0].Share != 0 || c.Cells[1][1].Share != 49 && c.Cells[1][1].Share != 50 || c.Cells[1][2].Text != "–" {
		t.Errorf("%+v", c.Cells)
	}
}

// builtin is a built-in experiment.
func builtin(t *testing.T, name string) simulate.Experiment {
	t.Helper()
	b, ok := simulate.BuiltinNamed(name)
	if !ok {
		t.Fatalf("no experiment %s", name)
	}
	return b.Experiment
}

// The table of a paper has its rows and columns, and its numbers beside ours.
func TestTableOfAPaper(t *testing.T) {
	r := New([]Run{
		run(builtin(t, "niid-fmnist-iid-fedavg"), 0, .8, .9), run(builtin(t, "niid-fmnist-iid-fedavg"), 1, .8, .88), run(builtin(t, "niid-fmnist-c2-scaffold"), 0, .5),
	})
	all := r.Crosses()
	if len(all) != 1 || fmt.Sprint(all[0].Rows, all[0].Columns) != "[2 labels IID] [fedavg scaffold]" {
		t.Fatalf("%+v", all)
	}
	if c := all[0].Cells[1][0]; c.Text != "89.0" || c.Published != "89.1" {
		t.Errorf("%+v", c)
	}
	published := r.Published()
	if len(published) != 2 || published[1].Theirs != "89.1\u00a0% ± 0.2" || published[1].Ours != "89.0\u00a0% (88.0–90.0)" {
		t.Errorf("%+v", published)
	}
}

// Numbers stand beside runs that they are about: not beside one with another learning rate or with fewer rounds.
func TestPublishedIsOfTheSameExperiment(t *testing.T) {
	x := builtin(t, "fmnist-2nn-iid")
	x.Data.Path, x.Seeds, x.Evaluation.RoundsTo = "/here", []uint64{7}, nil
	expected := len(New([]Run{run(x, 7, .5)}).Published())
	if expected != 7 {
		t.Errorf("%d numbers, want 7", expected)
	}
	x.Rounds = 50
	if n := len(New([]Run{run(x, 7, .5)}).Published()); n != 7 {
		t.Errorf("%d numbers of a shorter run, want 7: they are of single rounds", n)
	}
	x.Local.LearningRate = .1
	if n := len(New([]Run{run(x, 7, .5)}).Published()); n != 0 {
		t.Errorf("%d numbers of another learning rate", n)
	}
	x = builtin(t, "fedprox-synthetic-1-1-50-fedavg")
	x.Data = x.Data.At("d.json.gz")
	if n := len(New([]Run{run(x, 0, .5)}).Published()); n != 1 {
		t.Errorf("%d numbers of the same data from a file", n)
	}
	x.Data.Path = ""
	if n := len(New([]Run{run(x, 0, .5)}).Published()); n != 0 {
		t.Errorf("%d numbers of other data", n)
	}
	x = builtin(t, "niid-fmnist-c2-fedavg")
	x.Rounds = 5
	if n := len(New([]Run{run(x, 7, .5)}).Published()); n != 0 {
		t.Errorf("%d numbers of the end of a shorter run", n)
	}
}

// The page is one file without a script, says what the runs say, and survives texts that look like markup.
func TestPage(t *testing.T) {
	x := two(.1, 1)
	x.Name, x.Source = `<b>"x"`, "<script>alert(1)</script>"
	ended := run(x, 3, .25, .5)
	ended.Result.Diverged = "round 3: it & that"
	whole := run(two(.3, 2), 0, .9)
	write := func(runs ...Run) string {
		var page bytes.Buffer
		if err := New(runs).WritePage(&page); err != nil {
			t.Fatal(err)
		}
		return page.String()
	}
	text := write(ended, whole)
	if share := .125; strings.Contains(text, "ackdoor") {
		t.Error("there is no backdoor")
	} else if whole.Result.Final.Backdoor = &share; !strings.Contains(write(whole), "<td>12.5\u00a0%</td>") {
		t.Error("the backdoor's share is missing")
	}
	for _, bad := range []string{"<script", "<b>", "src=", "href=", "url(", "NaN", "no data"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	for _, want := range []string{"&lt;b&gt;", "round 3: it &amp; that", "90.0\u00a0%", "10\u00a0bytes", "no mechanism", "width=device-width", "prefers-color-scheme:dark"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, m := range regexp.MustCompile(`var\((--\w+)\)`).FindAllStringSubmatch(text, -1) {
		if m[1] != "--share" && strings.Count(text, m[1]+":#") != 2 {
			t.Errorf("%s is set %d times, want for light and for dark", m[1], strings.Count(text, m[1]+":#"))
		}
	}
}

// Each drawing is a file of XML, with a name of its own that every file system takes.
func TestFigures(t *testing.T) {
	var runs []Run
	for i := range 11 { // more than there are colours
		x := two(float64(i), 1)
		x.Compression.Bits = 2 + i
		r := run(x, 0, .1, .2)
		r.Points[0].Sent *= int64(1 + i)
		runs = append(runs, r)
	}
	all := New(runs)
	figures := slices.Concat(all.Figures(), all.Grids(), all.Partitions())
	names := map[string]bool{}
	for _, f := range figures {
		if names[f.File] || !regexp.MustCompile(`^[a-z0-9._-]+$`).MatchString(f.File) {
			t.Errorf("file %q", f.File)
		}
		names[f.File] = true
		for d := xml.NewDecoder(strings.NewReader(plot.File(f.SVG))); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, want := range []string{"two-accuracy", "two-loss", "two-bytes", "two-2-accuracy", "two-table", "two-bits-2-learning_rate-usual-partition"} {
		if !names[want] {
			t.Errorf("%s is not among %v", want, names)
		}
	}
}

func TestCSV(t *testing.T) {
	var b bytes.Buffer
	if err := New([]Run{run(two(.1, 1), 0, .5), run(two(.3, 2), 1, .25, .75)}).WriteCSV(&b); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(rows) != 3 {
		t.Fatalf("%v: %v", rows, err)
	}
	if got := strings.Join(rows[2], " "); got != "two epochs=2 learning_rate=0.3 1 math 2 1.5 0.75 0.25 20 0 digest1  2 0.3" {
		t.Errorf("%s", got)
	}
}

// A run that diverged has no accuracy in the end, however good it was before: tables say that it did, and means are of the
// others.
func TestDivergedRunsAreInNoMean(t *testing.T) {
	diverged := func(x simulate.Experiment, seed uint64, accuracies ...float64) Run {
		r := run(x, seed, accuracies...)
		r.Result.Diverged = "round 3: it did"
		return r
	}
	r := New([]Run{
		run(two(.1, 1), 0, .5), diverged(two(.1, 1), 1, .9), run(two(.1, 2), 0, .6), diverged(two(10, 1), 0, .8), diverged(two(10, 1), 1), run(two(10, 2), 0, .1),
	})
	some, all, none := r.Setups[0], r.Setups[1], r.Setups[2]
	if a := some.Accuracy(); a.Mean != .5 || some.Diverged() != "1 of 2 diverged" || none.Diverged() != "" || !math.IsNaN(all.Accuracy().Mean) || all.Diverged() != "diverged" {
		t.Errorf("%v %q %q %v %q", a, some.Diverged(), none.Diverged(), all.Accuracy(), all.Diverged())
	}
	c := r.Crosses()[0]
	if cell := c.Cells[0][1]; cell.Text != "–" || cell.Diverged != "diverged" || !c.Diverged || c.Cells[0][0].Text != "50.0" || c.Cells[1][1].Share != 0 {
		t.Errorf("%+v", c)
	}
	var page strings.Builder
	if err := r.WritePage(&page); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<td>50.0\u00a0%<small>1 of 2 diverged</small></td>", "–<small>diverged</small></td>", "where seeds diverged, the mean of the others"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page does not have %q", want)
		}
	}
	var table strings.Builder
	if err := r.WriteCSV(&table); err != nil {
		t.Fatal(err)
	}
	if want := "two epochs=1 learning_rate=0.1,1,math,1,1.5,,,10,0,digest1,round 3: it did,1,0.1"; !strings.Contains(table.String(), want) {
		t.Errorf("the table does not have %q:\n%s", want, table.String())
	}
}

// A level that some seeds never reach is told with how many did.
func TestPublishedSaysHowManyRunsCameThere(t *testing.T) {
	x := builtin(t, "fmnist-2nn-iid")
	for _, p := range New([]Run{run(x, 0, .5, .76), run(x, 1, .5, .6)}).Published() {
		if p.What == "first round at 75 %" && p.Ours != "2 in 1 of 2 runs" {
			t.Errorf("%q", p.Ours)
		}
	}
}

func TestNatural(t *testing.T) {
	for _, c := range [][2]string{{"a=2", "a=10"}, {"a=0.03", "a=0.3"}, {"a", "b"}, {"a", "a=1"}, {"1 label", "2 labels"}, {"x 9 y", "x 10"}} {
		if natural(c[0], c[1]) >= 0 || natural(c[1], c[0]) <= 0 || natural(c[0], c[0]) != 0 {
			t.Errorf("%q is not before %q", c[0], c[1])
		}
	}
}
