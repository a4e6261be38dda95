package simulate

import (
	"bytes"
	"math"
	"strings"
	"testing"
)

// points are two rounds, of which the first was not measured.
func points() []Point {
	return []Point{
		{Round: 1, Accuracy: math.NaN(), Loss: math.NaN(), Digest: "aa", Counted: 3, Sent: 10, Received: 20},
		{Round: 2, Accuracy: .5, Loss: .25, Digest: "bb", Counted: 2, Skipped: "why", Sent: 11, Received: 21},
	}
}

func TestPointsComeBack(t *testing.T) {
	var b bytes.Buffer
	if err := WriteJSONLines(&b, points()); err != nil {
		t.Fatal(err)
	}
	if strings.Count(b.String(), "accuracy") != 1 {
		t.Errorf("what was not measured is there: %s", b.String())
	}
	got, err := ReadJSONLines(bytes.NewReader(b.Bytes()), "rounds.jsonl")
	if err != nil || len(got) != 2 || !math.IsNaN(got[0].Accuracy) || got[1] != points()[1] {
		t.Errorf("%+v: %v", got, err)
	}
	for torn, want := range map[string]string{
		b.String()[:b.Len()-1]:                    "rounds.jsonl:2: the line has no end",
		b.String()[:b.Len()-9]:                    "rounds.jsonl:2: unexpected end of JSON input",
		strings.SplitAfter(b.String(), "\n")[1]:   "rounds.jsonl:1: round 2, want 1",
		b.String() + "{}\n":                       "rounds.jsonl:3: round 0, want 3",
		strings.Replace(b.String(), "1", "\"", 1): "rounds.jsonl:1: invalid",
	} {
		if _, err := ReadJSONLines(strings.NewReader(torn), "rounds.jsonl"); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestPointsAsATable(t *testing.T) {
	var b bytes.Buffer
	if err := WriteCSV(&b, points()); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	if !strings.HasPrefix(lines[0], "round,accuracy,loss,model_digest,updates,") || !strings.HasPrefix(lines[1], "1,,,aa,3,") || !strings.HasPrefix(lines[2], "2,0.5,0.25,bb,2,") {
		t.Errorf("%s", b.String())
	}
}
