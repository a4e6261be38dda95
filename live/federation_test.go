//go:build linux

package live_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

var coordinators = []string{"c1", "c2", "c3"}

const passphrase = "a passphrase that is used in tests only"

// seeds are federations of three coordinators and three nodes with data, stopped. What they are called and where they
// listen stands in what they have agreed, so tests that run at once take one each; those that come later take copies of it.
var seeds struct {
	mu   sync.Mutex // guards the field below
	free []*site
}

// federation gives a test three coordinators and three nodes that run, on directories of their own.
func federation(t *testing.T) *site {
	t.Helper()
	s := stopped(t)
	s.startAll()
	return s
}

// stopped gives a test the directories of a federation of which nothing runs.
func stopped(t *testing.T) *site {
	t.Helper()
	seed := lend(t)
	s := &site{t: t, dir: t.TempDir(), ports: seed.ports, procs: map[string]*process{}}
	if out, err := exec.Command("cp", "-a", seed.dir+"/.", s.dir).CombinedOutput(); err != nil {
		t.Fatalf("copy: %v\n%s", err, out)
	}
	return s
}

// lend gives a test a seed whose ports nobody else uses until the test has ended and its processes with it.
func lend(t *testing.T) *site {
	t.Helper()
	seeds.mu.Lock()
	var seed *site
	if n := len(seeds.free); n > 0 {
		seed, seeds.free = seeds.free[n-1], seeds.free[:n-1]
	}
	seeds.mu.Unlock()
	if seed == nil {
		seed = found(t)
	}
	t.Cleanup(func() {
		seeds.mu.Lock()
		defer seeds.mu.Unlock()
		seeds.free = append(seeds.free, seed)
	})
	return seed
}

// found makes a seed.
func found(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	dir, err := os.MkdirTemp(filepath.Dir(choir), "seed-")
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.path("pass"), passphrase+"\n")
	s.start("c1", "coordinator", "--bootstrap", "--config", "c1.yaml", "--root-key", "root.key", "--passphrase-file", "pass")
	s.ready("c1")
	for _, c := range coordinators[1:] {
		s.join(c)
	}
	for i, n := range []string{"n1", "n2", "n3"} {
		s.enrol(n)
		s.generate(n, i+1, 1500)
	}
	s.stopAll()
	if out, err := exec.Command("cp", "-a", s.dir+"/.", dir).CombinedOutput(); err != nil {
		t.Fatalf("copy: %v\n%s", err, out)
	}
	return &site{dir: dir, ports: s.ports}
}

// join makes a coordinator a member: token, request, approval.
func (s *site) join(name string) {
	s.t.Helper()
	s.choir("token", "create", "--role", "coordinator", "--out", name+".token")
	s.start(name, "coordinator", "--join", name+".token", "--config", name+".yaml")
	s.approve(name)
	s.ready(name)
}

// approve waits for a coordinator's request and approves it.
func (s *site) approve(name string) {
	s.t.Helper()
	eventually(s.t, 20*time.Second, name+" asks to join", func() error {
		if out, errs, code := s.try("cluster", "joins"); code != 0 || !strings.Contains(out, name) {
			return errors.New(errs)
		}
		return nil
	})
	s.choir("cluster", "approve", name, "--root-key", "root.key", "--passphrase-file", "pass")
}

// enrol makes a node a member and leaves it running.
func (s *site) enrol(name string) {
	s.t.Helper()
	s.choir("token", "create", "--label", "region="+name[1:], "--out", name+".token")
	s.start(name, "node", "--join-file", name+".token", "--config", name+".yaml")
	s.ready(name)
}

// generate imports made-up data at a node.
func (s *site) generate(node string, seed, rows int) {
	s.t.Helper()
	out := fmt.Sprintf("%s-data", node)
	s.choir("data", "generate", "shop", "--seed", fmt.Sprint(seed), "--sessions", fmt.Sprint(rows), "--to", out)
	s.choir("data", "import", "--config", node+".yaml", "--schema", "shop.yaml", filepath.Join(out, "sessions.csv"))
}

// startAll starts whatever is configured, as an operator starts it again.
func (s *site) startAll() {
	s.t.Helper()
	for _, c := range coordinators {
		s.again(c)
	}
	for _, n := range []string{"n1", "n2", "n3"} {
		s.again(n)
	}
	for _, name := range append(coordinators, "n1", "n2", "n3") {
		s.ready(name)
	}
}

// again starts a process that is a member already.
func (s *site) again(name string) *process {
	s.t.Helper()
	command := "node"
	if strings.HasPrefix(name, "c") {
		command = "coordinator"
	}
	return s.start(name, command, "--config", name+".yaml")
}

// stopAll stops all processes of the site, nodes first, and wants exit code 0 of each.
func (s *site) stopAll() {
	s.t.Helper()
	for _, kind := range []string{"n", "c"} {
		for name, p := range s.procs {
			if strings.HasPrefix(name, kind) && p.running() {
				if code := p.stop(s.t); code != 0 {
					s.t.Errorf("%s: exit %d after SIGTERM\n%s", name, code, last(p.log.String(), 10))
				}
			}
		}
	}
}

// addressLine is where a coordinator's configuration says how others reach it.
var addressLine = regexp.MustCompile(`(?m)^address:.*$`)

// healthPattern finds the health listener in a configuration.
var healthPattern = regexp.MustCompile(`(?m)^health:\s*"?([^"\s#]+)`)

// health asks a process's health listener.
func (s *site) health(name, path string) (int, string, error) {
	text, err := os.ReadFile(s.path(name + ".yaml"))
	if err != nil {
		return 0, "", err
	}
	m := healthPattern.FindSubmatch(text)
	if m == nil {
		return 0, "", fmt.Errorf("%s.yaml names no health listener", name)
	}
	return get("http://" + string(m[1]) + path)
}

// client keeps no connection: what it asks may just have been killed.
var client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// ready waits until a process says that it is.
func (s *site) ready(name string) {
	s.t.Helper()
	eventually(s.t, 30*time.Second, name+" is ready", func() error {
		if !s.procs[name].running() {
			return errEnded
		}
		code, body, err := s.health(name, "/readyz")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("%d %s", code, body)
		}
		return err
	})
}

// status asks the cluster.
func (s *site) status() (status, error) {
	out, errs, code := s.try("cluster", "status", "-o", "json")
	if code != 0 {
		return status{}, errors.New(errs)
	}
	return decode[status](s.t, out), nil
}

// leader waits until the cluster has one, and all live voters follow it.
func (s *site) leader() string {
	s.t.Helper()
	var name string
	eventually(s.t, 15*time.Second, "a leader", func() error {
		st, err := s.status()
		if err != nil {
			return err
		}
		if name = st.Leader; name == "" || s.procs[name] == nil || !s.procs[name].running() {
			return fmt.Errorf("%q leads", name)
		}
		return nil
	})
	return name
}

// submit writes a job's file from deploy/local/job.yaml with some keys changed, and submits it.
func (s *site) submit(name string, keys map[string]string) {
	s.t.Helper()
	text, err := os.ReadFile(s.path("job.yaml"))
	if err != nil {
		s.t.Fatal(err)
	}
	all := map[string]string{"name": name}
	for k, v := range keys {
		all[k] = v
	}
	body := string(text)
	for k, v := range all {
		line := regexp.MustCompile(`(?m)^#?\s?` + k + `:.*$`)
		if at := line.FindStringIndex(body); at != nil {
			body = body[:at[0]] + k + ": " + v + body[at[1]:]
		} else {
			body += "\n" + k + ": " + v + "\n"
		}
	}
	write(s.t, s.path(name+".job.yaml"), body)
	s.choir("job", "submit", name+".job.yaml")
}

// spooled is the newest round whose update one of the nodes has sent or is sending, and holds no answer for.
func (s *site) spooled(job string) (newest uint64) {
	for _, n := range []string{"n1", "n2", "n3"} {
		files, _ := os.ReadDir(s.path(n, "spool")) // it may not be there yet
		for _, f := range files {
			var round, attempt uint64
			if _, err := fmt.Sscanf(f.Name(), fmt.Sprintf("%x.%%d.%%d", job), &round, &attempt); err == nil {
				newest = max(newest, round)
			}
		}
	}
	return newest
}

// recounted exports the audit log, verifies it, and holds it against what the nodes say they have receipts for.
func (s *site) recounted() tally {
	s.t.Helper()
	_ = os.Remove(s.path("run.bundle")) // of an earlier recount
	s.choir("audit", "export", "run.bundle")
	root := strings.Fields(regexp.MustCompile(`(?m)^root:.*$`).FindString(read(s.t, s.path(".config", "choir", "context.yaml"))))[1]
	s.choir("audit", "verify", "run.bundle", "--root", root)
	nodes := map[string][]sent{}
	for _, n := range []string{"n1", "n2", "n3"} {
		nodes[n] = s.sent(n)
	}
	return recount(records(s.t, s.path("run.bundle")), nodes)
}

// sent is what a node says has left it.
func (s *site) sent(node string) []sent {
	s.t.Helper()
	return decode[struct{ Sent []sent }](s.t, s.choir("node", "status", "--config", node+".yaml", "-o", "json")).Sent
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// get asks a listener on loopback.
func get(url string) (int, string, error) {
	r, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	return r.StatusCode, string(b), err
}
