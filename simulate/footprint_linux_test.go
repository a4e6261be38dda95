package simulate

import (
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"testing"
	"time"

	"choir.example/model"
)

// resident is a line of /proc/self/status in MB.
func resident(t *testing.T, name string) float64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	var kb float64
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte(name+":")); ok {
			if _, err := fmt.Sscan(string(rest), &kb); err != nil {
				t.Fatal(err)
			}
		}
	}
	return kb / 1024
}

// What a run of 3,400 nodes takes beyond its data, and how long it takes to begin. The data are made and in memory
// before. Without parallel tests beside it.
func TestFootprint(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector takes memory and time of its own")
	}
	x := benchExperiment(model.Architecture{Name: "mlp"}, []int{784}, 10, 20_000)
	x.Rounds, x.Evaluation.Every = 3, 3
	debug.FreeOSMemory()
	before := resident(t, "VmRSS")
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // the peak is counted from here
		t.Skip(err)
	}
	start := time.Now()
	trial, err := newTrial(x, RunConfig{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := newEngine(trial)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Since(start)
	for round := range x.Rounds {
		if _, err := e.round(t.Context(), round+1); err != nil {
			t.Fatal(err)
		}
		trial.closed(round+1, 50, e.global)
	}
	peak := resident(t, "VmHWM") - before
	t.Logf("begins after %v, %.0f MB beyond the data at most", began, peak)
	if peak > 90 {
		t.Errorf("%.0f MB beyond the data, want at most 90", peak)
	}
	if began > 200*time.Millisecond {
		t.Errorf("the first round begins after %v, want at most .2 s", began)
	}
}
