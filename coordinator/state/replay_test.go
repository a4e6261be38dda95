package state_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"choir.example/coordinator/state"
)

var record = flag.Bool("record", false, "record the transcripts as logs of this version, where there is none yet")

// An old log replays in every later version: to the same answers, the same records, the same state. What follows an
// entry's index and term is "ok" or "refused", and the command. The file is never written again; a change of Apply that
// breaks it breaks every federation that runs. Only its last line, the digest of the snapshot, may change, and only
// when the snapshot's format does. The files are named for the story they were recorded from.
var recorded = map[string]string{
	"testdata/v1.log":            "job",
	"testdata/v1-algorithm.log":  "algorithm",
	"testdata/v1-control.log":    "control",
	"testdata/v1-epochs.log":     "epochs",
	"testdata/v1-membership.log": "membership",
	"testdata/v1-revocation.log": "revocation",
	"testdata/v1-roots.log":      "roots",
	"testdata/v1-selection.log":  "selection",
	"testdata/v1-withheld.log":   "withheld",
}

func TestAnOldLogReplays(t *testing.T) {
	for file, story := range recorded {
		t.Run(story, func(t *testing.T) { replayLog(t, file, story) })
	}
}

func replayLog(t *testing.T, file, story string) {
	if _, err := os.Stat(file); *record && err != nil {
		recordLog(t, file, story)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, want := state.New(), ""
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e entry
		var answer, data string
		if _, err := fmt.Sscanf(lines.Text(), "%d %d %s %s", &e.index, &e.term, &answer, &data); err != nil {
			want += lines.Text() + "\n"
			continue
		}
		if e.data, err = base64.StdEncoding.DecodeString(data); err != nil {
			t.Fatal(err)
		}
		next, refused := e.apply(s)
		if (refused == nil) != (answer == "ok") {
			t.Fatalf("entry %d: %s, it was %s", e.index, text(refused), answer)
		}
		s = next
	}
	if got := summary(t, s); got != want || s.Index < 40 {
		t.Errorf("after %d entries:\n%swant\n%s", s.Index, got, want)
	}
}

func summary(t *testing.T, s *state.State) string {
	t.Helper()
	return fmt.Sprintf("records %d root %x\nsnapshot %x\n", s.Log.Size(), s.Log.Root(), sha256.Sum256([]byte(snap(t, s))))
}

func recordLog(t *testing.T, file, story string) {
	t.Helper()
	var w strings.Builder
	s := state.New()
	for _, e := range load(t, story).entries(t) {
		next, refused := e.apply(s)
		answer := "ok"
		if refused != nil {
			answer = "refused"
		}
		fmt.Fprintln(&w, e.index, e.term, answer, base64.StdEncoding.EncodeToString(e.data))
		s = next
	}
	if err := os.WriteFile(file, []byte(w.String()+summary(t, s)), 0o644); err != nil {
		t.Fatal(err)
	}
}
