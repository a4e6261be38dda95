//go:build linux

package live_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	load        = flag.Duration("load", 0, "how long the prediction server is loaded in each of the load tests; 0: they are skipped")
	generatorGC = flag.String("generator-gc", "800", "GOGC of the load generator, a percentage; Go's default is 100")

	swaps = flag.Int("swaps", 100, "how many releases are published under load")
	fleet = flag.Int("fleet", 0, "how many node processes TestFleet has; below 5: it is skipped")
	idle  = flag.Duration("idle", 2*time.Second, "how long processes are idle before their memory is looked at")
)

// Idle processes are small.
func TestIdleMemory(t *testing.T) {
	s := federation(t)
	time.Sleep(*idle) // idleness is what is measured
	for name, limit := range map[string]int64{"n": 50 << 20, "c": 80 << 20} {
		var largest int64
		for process, p := range s.procs {
			if strings.HasPrefix(process, name) {
				largest = max(largest, p.memory(t))
			}
		}
		t.Logf("%s1 to %s3, idle for %v: at most %.1f MB RSS", name, name, *idle, float64(largest)/1e6)
		if largest > limit {
			t.Errorf("%d bytes RSS, want at most %d", largest, limit)
		}
	}
}

// served is a federation whose n1 answers predictions, with a request it understands.
func served(t *testing.T) (s *site, url, body string) {
	t.Helper()
	if *load == 0 {
		t.Skip("needs -load 20s")
	}
	s = federation(t)
	s.submit("purchase", small(3))
	s.ended("purchase", 60*time.Second)
	m := regexp.MustCompile(`(?m)^http:\s*"?([^"\s#]+)`).FindStringSubmatch(read(t, s.path("n1.yaml")))
	if m == nil {
		t.Fatal("n1.yaml names no prediction server")
	}
	url = "http://" + m[1] + "/v2/models/purchase"
	eventually(t, 20*time.Second, "n1 serves the release", func() error {
		code, _, err := get(url + "/ready")
		if err == nil && code != 200 {
			err = fmt.Errorf("%d", code)
		}
		return err
	})
	_, text, err := get(url)
	if err != nil {
		t.Fatal(err)
	}
	return s, url + "/infer", requestFor(t, text)
}

// requestFor makes a request of one row from the model's own description, all columns named.
func requestFor(t testing.TB, metadata string) string {
	t.Helper()
	m := decode[struct {
		Inputs []struct{ Name, Datatype string }
	}](t, metadata)
	var inputs []string
	for _, in := range m.Inputs {
		value, ok := map[string]string{"FP64": "1", "BOOL": "true", "BYTES": map[string]string{"device": `"desktop"`, "source": `"mail"`, "category": `"books"`}[in.Name]}[in.Datatype]
		if ok {
			inputs = append(inputs, fmt.Sprintf(`{"name":%q,"datatype":%q,"shape":[1],"data":[%s]}`, in.Name, in.Datatype, value))
		}
	}
	return `{"inputs":[` + strings.Join(inputs, ",") + `]}`
}

// tool finds a load generator.
func tool(t testing.TB, name string) string {
	t.Helper()
	if name == "vegeta" {
		path := filepath.Join(t.TempDir(), "vegeta")
		if out, err := exec.Command("go", "-C", "../tools", "build", "-o", path, "github.com/tsenart/vegeta/v12").CombinedOutput(); err != nil {
			t.Fatalf("build vegeta: %v\n%s", err, out)
		}
		return path
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("there is no %s here (Debian: apt-get install %s)", name, name)
	}
	return path
}

// attack is what vegeta reports.
type attack struct {
	Latencies struct {
		P50  time.Duration `json:"50th"`
		P99  time.Duration `json:"99th"`
		Max  time.Duration
		Mean time.Duration
	}
	Requests int
	Rate     float64
	Success  float64
	Codes    map[string]int `json:"status_codes"`
	Errors   []string
}

// vegeta sends requests at a constant rate over 16 connections. The function it returns waits for the report.
func vegeta(t testing.TB, url, body string, rate int, d time.Duration) (report func() attack) {
	t.Helper()
	path, dir := tool(t, "vegeta"), t.TempDir()
	write(t, filepath.Join(dir, "body"), body)
	args := []string{"attack", "-rate", strconv.Itoa(rate), "-connections", "16", "-max-workers", "16", "-workers", "16", "-duration", d.String(),
		"-body", filepath.Join(dir, "body"), "-header", "Content-Type: application/json", "-output", filepath.Join(dir, "results")}
	cmd := exec.Command(path, args...)
	// vegeta's latencies are those of vegeta: where it shares two cores with the server, a collection of its own garbage
	// stands in the one percent that p99 looks at.
	cmd.Env = append(cmd.Environ(), "GOGC="+*generatorGC)
	cmd.Stdin = strings.NewReader("POST " + url + "\n")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() attack {
		t.Helper()
		if err := cmd.Wait(); err != nil {
			t.Fatalf("vegeta: %v\n%s", err, &errs)
		}
		out, err := exec.Command(path, "report", "-type", "json", filepath.Join(dir, "results")).Output()
		if err != nil {
			t.Fatal(err)
		}
		var a attack
		if err := json.Unmarshal(out, &a); err != nil {
			t.Fatal(err)
		}
		t.Logf("%.0f/s asked, %.0f/s sent, %d requests: p50 %v, p99 %v, max %v, %.4f %% succeeded %v", float64(rate), a.Rate, a.Requests,
			a.Latencies.P50.Round(time.Microsecond), a.Latencies.P99.Round(time.Microsecond), a.Latencies.Max.Round(time.Microsecond), 100*a.Success, a.Errors)
		return a
	}
}

// Predictions over HTTP with 16 connections: how many a second, and how late at half of what is asked for.
func TestLoad(t *testing.T) {
	_, url, body := served(t)
	dir := t.TempDir()
	script := fmt.Sprintf("wrk.method = \"POST\"\nwrk.headers[\"Content-Type\"] = \"application/json\"\nwrk.body = [==[%s]==]\n", body)
	write(t, filepath.Join(dir, "post.lua"), script)
	out, err := exec.Command(tool(t, "wrk"), "-t", "1", "-c", "16", "-d", fmt.Sprintf("%ds", int(load.Seconds())), "--latency", "-s", filepath.Join(dir, "post.lua"), url).CombinedOutput()
	if err != nil {
		t.Fatalf("wrk: %v\n%s", err, out)
	}
	t.Logf("wrk, 16 connections:\n%s", out)
	m := regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`).FindSubmatch(out)
	if m == nil || bytes.Contains(out, []byte("Non-2xx")) {
		t.Fatal("requests failed")
	}
	if rate, _ := strconv.ParseFloat(string(m[1]), 64); rate < 10_000 {
		t.Errorf("%.0f predictions a second, want 10,000", rate)
	}
	if a := vegeta(t, url, body, 5000, *load)(); a.Success < 1 || a.Latencies.P99 > 2*time.Millisecond {
		t.Errorf("at 5,000 a second p99 is %v, %.4f %% succeeded; want below 2ms, all", a.Latencies.P99, 100*a.Success)
	}
}

// Predictions while the same process trains.
func TestLoadWhileTraining(t *testing.T) {
	s, url, body := served(t)
	s.submit("heavy", map[string]string{"rounds": "1000", "architecture": "{name: mlp, hidden: [256, 256]}", "local": "{epochs: 20}", "duration": "60s", "where": "region in [1, 2]"})
	eventually(t, 30*time.Second, "heavy trains", func() error {
		j, err := s.job("heavy")
		if err == nil && j.Round < 1 {
			err = fmt.Errorf("round %d", j.Round)
		}
		return err
	})
	before, _ := s.job("heavy")
	a := vegeta(t, url, body, 200, *load)()
	after, err := s.job("heavy")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("meanwhile rounds %d to %d were trained", before.Round, after.Round)
	if a.Success < 1 || a.Latencies.P99 > 5*time.Millisecond {
		t.Errorf("p99 is %v, %.4f %% succeeded; want below 5ms, all", a.Latencies.P99, 100*a.Success)
	}
}

// Releases are swapped under load: no request fails.
func TestSwapUnderLoad(t *testing.T) {
	s, url, body := served(t)
	first := s.version(url)
	stop := time.Now()
	report := vegeta(t, url, body, 1000, *load)
	for i := range *swaps {
		s.choir("job", "continue", "purchase", "--rounds", "1")
		eventually(t, 60*time.Second, "the next release is served", func() error {
			if v := s.version(url); v < first+uint64(i)+1 {
				return fmt.Errorf("version %d", v)
			}
			return nil
		})
	}
	took := time.Since(stop)
	a := report()
	t.Logf("%d releases in %v, from version %d to %d, load for %v", *swaps, took.Round(time.Millisecond), first, s.version(url), *load)
	if took > *load {
		t.Errorf("the load ended before the last swap: give -load more than %v", took)
	}
	if a.Success < 1 {
		t.Errorf("%v of %d requests failed: %v", a.Codes, a.Requests, a.Errors)
	}
}

// version is the release that answers.
func (s *site) version(url string) uint64 {
	_, text, err := get(strings.TrimSuffix(url, "/infer"))
	if err != nil {
		return 0
	}
	m := decode[struct{ Versions []string }](s.t, text)
	if len(m.Versions) == 0 {
		return 0
	}
	v, _ := strconv.ParseUint(m.Versions[0], 10, 64)
	return v
}

// Many node processes on one machine, 20 rounds of the purchase job.
func TestFleet(t *testing.T) {
	if *fleet < 5 {
		t.Skip("needs -fleet 50, or another number above 4")
	}
	s := federation(t)
	names := []string{"n1", "n2", "n3"} // which have their data
	more := *fleet - len(names)
	s.choir("token", "create", "--count", strconv.Itoa(more), "--out", "fleet.token")
	for i := range more {
		name := fmt.Sprintf("n%d", 100+i)
		names = append(names, name)
		s.copyConfig("n1", name)
		s.start(name, "node", "--join-file", fmt.Sprintf("fleet-%d.token", i+1), "--config", name+".yaml")
	}
	for i, name := range names[3:] {
		s.ready(name)
		s.generate(name, 1000+i, 300)
	}
	keys := map[string]string{"rounds": "20", "goal": strconv.Itoa(*fleet), "minimum_cohort": strconv.Itoa(*fleet)}
	start := time.Now()
	s.submit("purchase", keys)
	j := s.ended("purchase", 10*time.Minute)
	took := time.Since(start)
	for _, r := range j.Rounds {
		if r.State != "closed" || r.Accepted != *fleet {
			t.Errorf("round %d attempt %d: %s with %d updates", r.Round, r.Attempt, r.State, r.Accepted)
		}
	}
	var largest int64
	for _, n := range names {
		if !s.procs[n].running() {
			t.Errorf("%s has ended", n)
			continue
		}
		largest = max(largest, s.procs[n].memory(t))
	}
	t.Logf("%d nodes, %d rounds with statistics, release and gates in %v: %.2f s/round; largest node %.1f MB RSS", *fleet, j.Round, took.Round(time.Millisecond), took.Seconds()/float64(j.Round), float64(largest)/1e6)
}
