package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"choir.example/coordinator/state"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/protobuf/proto"
)

// hostile is what somebody might write wherever he may write anything.
const hostile = `"><script>alert(1)</script>`

// fixed is a source that does not change.
type fixed struct {
	state   *state.State
	doubt   error
	cluster Cluster
	present map[string]bool
	err     error
}

func (f fixed) State(context.Context) (*state.State, error) { return f.state, f.doubt }
func (f fixed) Cluster(context.Context) (Cluster, error)    { return f.cluster, f.err }
func (f fixed) Present(context.Context) map[string]bool     { return f.present }

// get asks for a page.
func get(t *testing.T, source Source, method, target string) (*httptest.ResponseRecorder, string) {
	t.Helper()
	w := httptest.NewRecorder()
	New("c1", source, slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w, w.Body.String()
}

// page asks for a page that must be there.
func page(t *testing.T, source Source, target string) string {
	t.Helper()
	w, body := get(t, source, http.MethodGet, target)
	if w.Code != http.StatusOK {
		t.Fatalf("%s: %d: %s", target, w.Code, body)
	}
	return body
}

// want fails the test unless the page has all the texts.
func want(t *testing.T, body string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(body, text) {
			t.Errorf("%q is not in %s", text, body)
		}
	}
}

// never fails the test if the page has one of the texts.
func never(t *testing.T, body string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(body, text) {
			t.Errorf("%q is in %s", text, body)
		}
	}
}

// closed is a closed training round whose starting model had an AUC and a mean loss over eight examples.
func closed(number uint64, auc int64, loss float64) *state.Round {
	return &state.Round{
		Number: number, Attempt: 1, Kind: choirv1.RoundKind_ROUND_KIND_TRAIN, Phase: state.PhaseClosed, Invited: 2, Count: 2,
		Evaluation: []state.Evaluation{{Nodes: 2, Examples: 8, AUC: auc, Loss: int64(loss * 8 * (1 << 20))}},
	}
}

// site is a small federation: two coordinators, three nodes, a job, a release.
func site(t *testing.T) fixed {
	t.Helper()
	spec, err := proto.Marshal(&choirv1.JobSpec{
		Name: "purchase", Model: "shop", Rounds: 5, Hidden: []uint32{32, 16}, LocalEpochs: 2, Batch: 32, LearningRate: .1,
		MinimumCohort: 2, DurationMs: 90_000, MaxAttempts: 3, Where: []*choirv1.LabelMatch{{Label: "region", Values: []string{"1", "2"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := state.New()
	s.Index, s.Cluster = 1234, "shop.example"
	s.Coordinators = []state.Coordinator{{Name: "c1", Address: "10.0.0.1:7100"}, {Name: "c2", Address: "10.0.0.2:7100"}}
	s.Nodes = map[string]state.Node{
		"n1": {Labels: map[string]string{"region": "1"}, Spent: 3}, "n2": {Labels: map[string]string{"note": hostile}, Spent: 7, Reserved: 1},
		"n3": {Revoked: true},
	}
	abandoned := closed(3, 0, 0)
	abandoned.Phase, abandoned.Reason, abandoned.Evaluation = state.PhaseAbandoned, "too few updates", nil
	open := &state.Round{
		Number: 3, Attempt: 2, Kind: choirv1.RoundKind_ROUND_KIND_TRAIN, Phase: state.PhaseOpen, Invited: 2, Goal: 2, Count: 1, Refused: 1,
		Incidents: map[string]string{"n2": audit.ReasonShape},
	}
	old := closed(1, 500_000, .7)
	old.Refused = 4
	s.Jobs = map[string]*state.Job{"purchase": {
		Name: "purchase", Spec: spec, State: state.JobRunning, Trained: 2, Release: 1, Rounds: []*state.Round{old, closed(2, 912_345, .25), abandoned, open},
	}}
	s.Releases = map[string][]state.Release{"shop": {{Model: "shop", Version: 1, Job: "purchase", Round: 2, Index: 99, Variants: []state.Variant{
		{Name: "float32", Blob: state.Digest{0xab}, Bytes: 20_480, Published: true, Evaluation: state.Evaluation{Examples: 8, AUC: 912_345}},
		{Name: "int8", Blob: state.Digest{0xcd}, Bytes: 5_120, Reason: "AUC 1 against 2 " + hostile},
	}}}}
	s.Log = audit.NewLog([][]byte{audit.Encode(&audit.Genesis{Cluster: hostile}), audit.Encode(&audit.RoundCut{Job: "purchase", Round: 2, Attempt: 1, Count: 2})})
	return fixed{s, nil, Cluster{Leader: "c2", Term: 7, Replicas: map[string]Replica{
		"c1": {State: "alive", Load: 2}, "c2": {State: "unreachable", Applied: 1200},
	}}, map[string]bool{"n1": true, "n3": true}, nil}
}

func TestClusterPage(t *testing.T) {
	want(t, page(t, site(t), "/"), "shop.example", "2 coordinators, 1 in sight", "<dd>c2</dd>", "<dd>7</dd>", "1\u202f234",
		"10.0.0.2:7100", "unreachable", "1\u202f200", `2 <small>1 revoked</small>`, `1 <small>1 running</small>`)
	s := site(t)
	s.state.Joins = map[string]state.Join{"c3": {Address: "10.0.0.3:7100"}}
	want(t, page(t, s, "/"), "Waiting to join", "c3", "10.0.0.3:7100")
}

// A page says when what it shows may be old.
func TestUnconfirmed(t *testing.T) {
	s := site(t)
	never(t, page(t, s, "/jobs"), "may be old")
	s.doubt = errors.New("coordinator c1 is behind")
	for _, target := range []string{"/", "/nodes", "/jobs", "/records"} {
		want(t, page(t, s, target), "may be old: coordinator c1 is behind.")
		if w, _ := get(t, s, http.MethodGet, target); w.Header().Get(Unconfirmed) == "" {
			t.Errorf("%s does not say so to programs", target)
		}
	}
}

func TestNodesPage(t *testing.T) {
	body := page(t, site(t), "/nodes")
	want(t, body, "3 nodes enrolled, 1 present, 1 revoked", "region=1", "and 1 reserved")
	for node, state := range map[string]string{"n1": "present", "n2": "away", "n3": "revoked"} { // n3 is heard, but may do nothing
		if found := regexp.MustCompile(`(?s)>` + node + `</td>.*?class="state (\w+)"`).FindStringSubmatch(body); found == nil || found[1] != state {
			t.Errorf("%s: %q, want %s", node, found, state)
		}
	}
}

func TestJobPage(t *testing.T) {
	want(t, page(t, site(t), "/jobs"), "1 training task", `href="/jobs/purchase"`, "2 of 5", "training round 3, 1 of 2 counted, attempt 2", "0.9123", "shop 1")
	body := page(t, site(t), "/jobs/purchase")
	want(t, body, "running", "too few updates", "attempt 2", "0.9123", "0.2500", "0.7000", "32 16", "at most 1m30s", "1 or 2",
		"<td class=\"head wrap\">n2</td>", audit.ReasonShape, "4 refusals of older rounds", `aria-label="AUC on the nodes`)
	if rounds := regexp.MustCompile(`data-name="Round">(\d)`).FindAllStringSubmatch(body, -1); len(rounds) != 4 || rounds[0][1] != "3" || rounds[3][1] != "1" {
		t.Errorf("rounds %v, want the newest first", rounds)
	}
}

// A job that has not begun shows no empty chart.
func TestYoungJob(t *testing.T) {
	s := site(t)
	s.state.Jobs["purchase"].Rounds = nil
	body := page(t, s, "/jobs/purchase")
	want(t, body, "No round has begun")
	never(t, body, "<svg")
}

func TestReleasePages(t *testing.T) {
	want(t, page(t, site(t), "/releases"), "1 published version", `href="/releases/shop/1"`, "20.0 KiB", `state withheld`)
	want(t, page(t, site(t), "/releases/shop/1"), "published", "withheld", "AUC 1 against 2", "0.9123", state.Digest{0xab}.String())
}

// What others wrote is text, on every page.
func TestNothingBecomesMarkup(t *testing.T) {
	s := site(t)
	j := s.state.Jobs["purchase"]
	j.Reason, j.Rounds[2].Reason = hostile, hostile
	s.state.Coordinators[0].Address, s.cluster.Leader = hostile, hostile
	for _, target := range []string{"/", "/nodes", "/jobs", "/jobs/purchase", "/releases", "/releases/shop/1", "/records", "/records/0", "/records/1"} {
		body := page(t, s, target)
		never(t, body, "<script", `">alert`)
		if target != "/records/1" && target != "/releases" {
			want(t, body, "&lt;script&gt;alert(1)")
		}
	}
	_, body := get(t, s, http.MethodGet, "/jobs/%3Cscript%3Ealert(1)%3C%2Fscript%3E?from=%22%3E%3Cscript%3E")
	never(t, body, "<script")
}

func TestNothingThere(t *testing.T) {
	for _, target := range []string{"/jobs/none", "/releases/shop/0", "/releases/shop/2", "/releases/none/1", "/releases/shop/x", "/records/2",
		"/records/-1", "/records/x", "/records/18446744073709551616", "/nodes/n1", "/favicon.ico", "/files/layout.html", "/../go.mod"} {
		if w, body := get(t, site(t), http.MethodGet, target); w.Code != http.StatusNotFound && w.Code/100 != 3 || strings.Contains(body, "define") {
			t.Errorf("%s: %d", target, w.Code)
		}
	}
	empty := fixed{state: state.New()}
	want(t, page(t, empty, "/"), "0 coordinators")
	want(t, page(t, empty, "/nodes"), "No node has enrolled yet")
	want(t, page(t, empty, "/jobs"), "No job yet")
	want(t, page(t, empty, "/releases"), "Nothing has been published yet")
	want(t, page(t, empty, "/records"), "not founded yet")
}

// Every answer carries the headers, also a refusal; only reading is answered.
func TestReadingOnly(t *testing.T) {
	for _, c := range []struct {
		method, target string
		code           int
	}{
		{"GET", "/", 200}, {"HEAD", "/", 200}, {"GET", "/style.css", 200}, {"GET", "/icon.svg", 200}, {"GET", "/none", 404},
		{"POST", "/", 405}, {"PUT", "/jobs", 405}, {"DELETE", "/nodes", 405}, {"PATCH", "/", 405}, {"OPTIONS", "/", 405}, {"TRACE", "/", 405}, {"BREW", "/", 405},
	} {
		w, body := get(t, site(t), c.method, c.target)
		if w.Code != c.code || c.code == 405 && (w.Header().Get("Allow") != "GET, HEAD" || strings.Contains(body, "<")) {
			t.Errorf("%s %s: %d %v", c.method, c.target, w.Code, w.Header())
		}
		for name, value := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
			"X-Content-Type-Options":  "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
			"Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := w.Header().Get(name); got != value {
				t.Errorf("%s %s: %s is %q", c.method, c.target, name, got)
			}
		}
	}
}

// The pages ask for nothing from elsewhere, and for nothing that the policy would refuse.
func TestPagesStayAtHome(t *testing.T) {
	s := site(t)
	elsewhere := regexp.MustCompile(`(?i)(https?:)?//[a-z0-9]|@import|url\(|<script|<iframe|style="|\son[a-z]+=`)
	namespace := strings.NewReplacer(`xmlns="http://www.w3.org/2000/svg"`, "")
	for _, target := range []string{"/", "/nodes", "/jobs", "/jobs/purchase", "/releases", "/releases/shop/1", "/records", "/records/0", "/none", "/style.css", "/icon.svg"} {
		_, body := get(t, s, http.MethodGet, target)
		if found := elsewhere.FindString(namespace.Replace(body)); found != "" {
			t.Errorf("%s has %q", target, found)
		}
	}
}

// What went wrong inside is for the log, not for the page.
func TestSourceFails(t *testing.T) {
	s := site(t)
	s.err = errors.New("the inside of things")
	w, body := get(t, s, http.MethodGet, "/")
	if w.Code != http.StatusInternalServerError || strings.Contains(body, "inside") {
		t.Errorf("%d: %s", w.Code, body)
	}
	s.state.Jobs["purchase"].Spec = []byte{0xff}
	if w, _ := get(t, s, http.MethodGet, "/jobs"); w.Code != http.StatusInternalServerError {
		t.Errorf("a broken specification: %d", w.Code)
	}
}

// A page that is followed loads itself again, and offers to stop; where it stands in a list stays.
func TestFollow(t *testing.T) {
	w, body := get(t, site(t), http.MethodGet, "/jobs")
	if w.Header().Get("Refresh") != "" {
		t.Error("it follows unasked")
	}
	want(t, body, `href="/jobs?follow=1"`)
	w, body = get(t, site(t), http.MethodGet, "/jobs/purchase?follow=1&from=2")
	if w.Header().Get("Refresh") != "5" {
		t.Errorf("Refresh is %q", w.Header().Get("Refresh"))
	}
	want(t, body, `href="/jobs/purchase?from=2"`, "stop following")
}

// Long lists come in pages that leave nothing out and show nothing twice, whatever is asked for.
func TestPaging(t *testing.T) {
	s := site(t)
	s.state.Nodes = map[string]state.Node{}
	for i := range 250 {
		s.state.Nodes[fmt.Sprintf("node-%03d", i)] = state.Node{}
	}
	seen := map[string]int{}
	link := "/nodes"
	for range 3 {
		body := page(t, s, link)
		for _, name := range regexp.MustCompile(`node-\d{3}`).FindAllString(body, -1) {
			seen[name]++
		}
		next := regexp.MustCompile(`href="(\?from=\d+)">on`).FindStringSubmatch(body)
		if next == nil {
			break
		}
		link = "/nodes" + next[1]
	}
	if len(seen) != 250 {
		t.Errorf("%d nodes in three pages", len(seen))
	}
	for name, n := range seen {
		if n != 1 {
			t.Errorf("%s is shown %d times", name, n)
		}
	}
	want(t, page(t, s, "/nodes?from=200"), "201–250 of 250", `href="?from=100">← back`)
	for _, from := range []string{"250", "-1", "x", "18446744073709551615", "99999999999999999999"} {
		want(t, page(t, s, "/nodes?from="+from), "1–100 of 250")
	}
}

// full is a record with every field set, so that each is written.
func full(r audit.Record) audit.Record {
	fill(reflect.ValueOf(r).Elem())
	return r
}

func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int64:
		v.SetInt(2)
	default:
		v.SetUint(2)
	}
}

// Each kind of record, the ones to come among them, has a page with all its fields, and a line in the list.
func TestEveryKindOfRecordIsReadable(t *testing.T) {
	records := []audit.Record{
		&audit.Genesis{}, &audit.EpochAnnounced{}, &audit.TokenCreated{}, &audit.Enrolled{}, &audit.JobSubmitted{}, &audit.RoundOpened{},
		&audit.BatchAccepted{}, &audit.RoundCut{}, &audit.Charged{}, &audit.RoundClosed{}, &audit.RoundAbandoned{}, &audit.Released{},
		&audit.Incident{}, &audit.JobEnded{}, &audit.TokenRevoked{}, &audit.NodeRevoked{}, &audit.PersonRevoked{}, &audit.JoinRequested{},
		&audit.CoordinatorApproved{}, &audit.CoordinatorRemoved{}, &audit.JobControlled{}, &audit.RootRotated{}, &audit.CoordinatorRenewed{},
		&audit.OfficerAdmitted{},
	}
	for i, r := range records {
		if r.Kind() != audit.Kind(i+1) {
			t.Fatalf("record %d is %s", i, r.Kind())
		}
	}
	if next := audit.Kind(len(records) + 1); next.String() != fmt.Sprintf("kind %d", next) {
		t.Fatalf("%s is not tested", next)
	}
	var leaves [][]byte
	for _, r := range records {
		leaves = append(leaves, audit.Encode(full(r)))
	}
	s := site(t)
	s.state.Log = audit.NewLog(leaves)
	list := page(t, s, "/records")
	for i, r := range records {
		body := page(t, s, fmt.Sprintf("/records/%d", i))
		want(t, body, "Record "+num(i)+": "+r.Kind().String())
		for _, f := range reflect.VisibleFields(reflect.TypeOf(r).Elem()) {
			if f.Type.Kind() != reflect.Struct { // whose fields stand for it
				want(t, body, "<dt>"+title(f.Name)+"</dt>")
			}
		}
		never(t, body, "[2 2", "{") // Go's own way to print what nobody thought of
		line := regexp.MustCompile(fmt.Sprintf(`href="/records/%d">.*?</tr>`, i)).FindString(list)
		if !strings.Contains(line, r.Kind().String()) || strings.Contains(line, "<span></span>") {
			t.Errorf("%s in the list: %s", r.Kind(), line)
		}
	}
	if newest := regexp.MustCompile(`href="/records/(\d+)">`).FindStringSubmatch(list); newest[1] != fmt.Sprint(len(records)-1) {
		t.Errorf("the list begins with %s", newest[1])
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		num(0): "0", num(999): "999", num(1000): "1\u202f000", num(-1234567): "-1\u202f234\u202f567", num(2.5): "2.5", num(1234.04): "1\u202f234",
		size(9_999): "9\u202f999 B", size(10_000): "9.8 KiB", size(11 << 20): "11.0 MiB",
		span(30_000): "30 s", span(1500): "1.5 s", span(60_000): "1 minute", span(7_200_000): "120 minutes", span(1 << 63): "9\u202f223\u202f372\u202f036\u202f854\u202f775\u202f808 ms",
		epoch(2): "2", epoch(1_700_000_000): "2023-11-14 22:13 UTC",
		title("ExpiresMS"): "Expires", title("RoundKind"): "Round kind", title("ID"): "ID", title("EvalExamples"): "Eval examples",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
