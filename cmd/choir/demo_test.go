package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// choir runs a command line in this process.
func choir(t *testing.T, args ...string) (out, errs string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, &terminal{out: &o, err: &e})
	return o.String(), e.String(), code
}

func TestUsage(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "something"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args string
		code int
		err  string // in what is said on standard error
	}{
		{"demo --coordinators 2", exitUsage, "add --no-kill"},
		{"demo --coordinators 1", exitUsage, "add --no-kill"},
		{"demo --coordinators 0", exitUsage, "want 1 to 7"},
		{"demo --nodes 1", exitUsage, "take two nodes"},
		{"demo --nodes 0", exitUsage, "want 1 to 100"},
		{"demo --nodes -1", exitUsage, "--nodes is -1, want 1 to 100"},
		{"demo --nodes=-1", exitUsage, "--nodes is -1, want 1 to 100"},
		{"demo --no-kill -1", exitUsage, "--no-kill"},
		{"demo -- -1", exitUsage, "-1"},
		{"demo --rounds 0", exitUsage, "want 1 to 1000"},
		{"demo --rounds many", exitUsage, "--rounds"},
		{"demo --seed -1", exitUsage, "--seed"},
		{"demo -o xml", exitUsage, "table"},
		{"demo --keep " + full, exitFail, "name a directory that is empty or does not exist"},
		{"demo --keep " + filepath.Join(full, "something", "below"), exitFail, "not a directory"},
		{"sing", exitUsage, "hint:"},
		{"--help", exitOK, ""},
		{"", exitOK, ""},
		{"demo --help", exitOK, ""},
	} {
		t.Run(test.args, func(t *testing.T) {
			out, errs, code := choir(t, strings.Fields(test.args)...)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if !strings.Contains(errs, test.err) {
				t.Errorf("it says %q, want something with %q", errs, test.err)
			}
			if test.code == exitOK && (out == "" || errs != "") || test.code != exitOK && !strings.Contains(errs, "choir: error: ") {
				t.Errorf("standard output %q, standard error %q", out, errs)
			}
		})
	}
}

// keys lists the keys of a decoded JSON value, nested with dots; of a list those of its first element.
func keys(prefix string, v any) []string {
	var out []string
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			out = append(out, keys(prefix+"."+k, v[k])...)
		}
	case []any:
		out = keys(prefix+"[]", v[0])
	default:
		out = []string{strings.TrimPrefix(prefix, ".")}
	}
	return out
}

// Exactly one JSON object comes on standard output, with the keys that scripts rely on.
func TestDemoJSON(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kept")
	out, errs, code := choir(t, "demo", "--rounds", "2", "--nodes", "3", "--seed", "5", "-o", "json", "--keep", dir)
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	d := json.NewDecoder(strings.NewReader(out))
	var got map[string]any
	if err := d.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		t.Errorf("more than one object: %v", err)
	}
	if !regexp.MustCompile(`"metrics":\{"federated":\{[^}]*\},"local_mean":\{[^}]*\},"central"`).MatchString(out) {
		t.Errorf("metrics are not in their order: %s", out)
	}
	want := strings.Fields(`audit.records audit.verified coordinators failover.counted failover.lost failover.receipts failover.round
		failover.seconds failover.twice metrics.central.accuracy metrics.central.auc metrics.federated.accuracy metrics.federated.auc
		metrics.local_mean.accuracy metrics.local_mean.auc model.digest model.name model.version nodes prediction.model_version
		prediction.probability report rounds_committed seconds seed uplink_bytes_per_node_round variants[].auc variants[].bytes
		variants[].name variants[].p50_us variants[].p99_us`)
	if k := keys("", got); !slices.Equal(k, want) {
		t.Errorf("keys %v\nwant %v", k, want)
	}
	var names []string
	for _, v := range got["variants"].([]any) {
		names = append(names, v.(map[string]any)["name"].(string))
	}
	if !slices.Equal(names, []string{"float32", "int8", "student-int8"}) {
		t.Errorf("variants %v", names)
	}
	for _, file := range []string{"audit/run.bundle", "audit/root.fingerprint", "report.html", "c1", "node-01"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			t.Errorf("not kept: %v", err)
		}
	}
	if !strings.Contains(errs, "\ntraining") { // which of two short rounds is seen is chance
		t.Errorf("no progress on standard error: %q", errs)
	}
	root, err := os.ReadFile(filepath.Join(dir, "audit", "root.fingerprint"))
	if err != nil {
		t.Fatal(err)
	}
	if out, errs, code := choir(t, "audit", "verify", filepath.Join(dir, "audit", "run.bundle"), "--root", strings.TrimSpace(string(root))); code != exitOK {
		t.Errorf("audit verify: exit code %d, %s%s", code, out, errs)
	}
}

// A demo that found what must not be says so and exits 1: with one round among so many nodes the model has hardly learnt
// and its student misses the gate. The rest is there, and failover is an object though nobody was killed.
func TestDemoFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kept")
	out, errs, code := choir(t, "demo", "--rounds", "1", "--nodes", "100", "--seed", "2", "--no-kill", "--coordinators", "1", "-o", "json", "--keep", dir)
	if code != exitFail {
		t.Errorf("exit code %d, want %d", code, exitFail)
	}
	for _, variant := range []string{"student", "student-int8"} {
		if !strings.Contains(errs, "choir: error: variant "+variant+" was withheld: AUC ") {
			t.Errorf("it does not say that %s was withheld: %s", variant, errs)
		}
	}
	var got struct {
		Variants []struct{ Name string }
		Failover *struct{ Round, Receipts, Counted, Lost, Twice int }
		Audit    struct{ Verified bool }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if f := got.Failover; f == nil || f.Round != 0 || f.Receipts != 300 || f.Counted != 300 || f.Lost != 0 || f.Twice != 0 {
		t.Errorf("failover %+v", f)
	}
	if len(got.Variants) != 2 || !got.Audit.Verified {
		t.Errorf("variants %v, audit %v", got.Variants, got.Audit)
	}
	page, err := os.ReadFile(filepath.Join(dir, "report.html"))
	if err != nil || !strings.Contains(string(page), "variant student was withheld") {
		t.Errorf("the page does not say it: %v", err)
	}
}

// An interrupt ends the demo with a word, an exit code of its own kind, and nothing left behind.
func TestDemoInterrupted(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	errs := &interrupter{cancel: cancel}
	if code := run(ctx, []string{"demo", "--nodes", "2", "--coordinators", "1", "--no-kill"}, &terminal{out: &out, err: errs}); code != exitFail {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(errs.String(), "choir: error: interrupted") || out.Len() > 0 {
		t.Errorf("standard output %q, standard error %q", &out, errs.String())
	}
	if left, _ := os.ReadDir(os.TempDir()); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// interrupter interrupts once training is under way.
type interrupter struct {
	bytes.Buffer
	cancel context.CancelFunc
}

func (i *interrupter) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("round 2")) {
		i.cancel()
	}
	return i.Buffer.Write(b)
}
