package simulate

import (
	"bytes"
	"encoding/json"
	"html"
	"regexp"
	"strings"
	"testing"
)

// pageOf is the page's visible text, with every run of white space as one space.
func pageOf(t *testing.T, r *DemoResult) (markup, text string) {
	t.Helper()
	var b bytes.Buffer
	if err := WriteReport(&b, r); err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`(?s)<style>.*?</style>|<[^>]*>`).ReplaceAllString(b.String(), " ")
	return b.String(), strings.Join(strings.Fields(html.UnescapeString(text)), " ")
}

func shown() *DemoResult {
	r := &DemoResult{
		Nodes: 9, Coordinators: 3, Rounds: 6, Seconds: 9,
		Metrics:  DemoMetrics{Federated: Score{.93, .9}, LocalMean: Score{.91, .88}, Central: Score{.94, .91}},
		Failover: DemoFailover{Round: 3, Seconds: 1.25, Receipts: 1098, Counted: 1098, Victim: "c2"},
		Released: []DemoVariant{{Name: "float32", Bytes: 11076, AUC: .93, Digest: strings.Repeat("ab", 32)}, {Name: "int8", Bytes: 5008, AUC: .9299}},
		Local:    Validated{.905, .27}, Central: Validated{.935, .24},
		Request: `{"inputs":[{"name":"a","data":[1]},{"name":"b,{","data":["\"x"]}]}`, Answer: `{"model_name":"purchase"}`,
	}
	for i := range 7 {
		r.Curve = append(r.Curve, CurvePoint{uint64(i), Validated{[]float64{.5211, .9, .91, .92, .925, .928, .9304}[i], .3}})
	}
	return r
}

// The page ends the curve at the finished model, holds it against the others on one axis, marks the kill, and says that
// nothing was lost.
func TestReport(t *testing.T) {
	markup, text := pageOf(t, shown())
	for _, want := range []string{
		"the federation, in the end: 0.9304", "each region alone (mean of 9): 0.9050", "all data in one place: 0.9350",
		"leader killed", "0 lost, 0 twice", "1,098 receipts, 1,098 counted", "lost 0 counted twice 0", "11,076", "Smallest model 5,008 bytes",
		"The untrained model is not drawn: AUC 0.5211", "abababababab…", "c2 was killed in round 3",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(markup, "<script") || strings.Contains(markup, ">0.50</text>") {
		t.Error("the page has a script, or an axis that begins at a guess")
	}
	calm := shown()
	calm.Failover = DemoFailover{Receipts: 18, Counted: 18}
	calm.Curve, calm.Released, calm.Nodes, calm.Coordinators, calm.Rounds = calm.Curve[:2], nil, 1, 1, 1
	if _, text := pageOf(t, calm); strings.Contains(text, "killed") || !strings.Contains(text, "1 node, 1 coordinator, one model 1 training round of") ||
		!strings.Contains(text, "0 lost, 0 twice") || strings.Contains(text, "is not drawn") {
		t.Errorf("without a kill the page says\n%s", text)
	}
}

func TestLaidOut(t *testing.T) {
	const want = "{\n  \"inputs\": [\n    {\"name\": \"a\", \"data\": [1]},\n    {\"name\": \"b,{\", \"data\": [\"\\\"x\"]}\n  ]\n}"
	if got := laidOut(shown().Request); got != want || !json.Valid([]byte(got)) {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	for in, want := range map[string]string{"1": "1", "12": "12", "123": "123", "1234": "1,234", "1234567": "1,234,567", "-123": "-123", "-1234": "-1,234"} {
		if got := grouped(in); got != want {
			t.Errorf("%s is written %s, want %s", in, got, want)
		}
	}
}
