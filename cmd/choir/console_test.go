package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"choir.example/model/data"
	"choir.example/node"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
	"choir.example/simulate"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// hostile is a label that would run, and be wide, in a page that does not look after what it shows.
const hostile = `<script>document.title="taken"</script>`

// consoleSite is a federation that has trained and published, and contexts of its people.
type consoleSite struct {
	*simulate.Federation
	dir string
}

// startSite starts three coordinators and three nodes, runs a job of four rounds, and enrols a fourth node that never
// comes, with hostile labels.
func startSite(t *testing.T) *consoleSite {
	t.Helper()
	schema, rows, regions, err := data.Shoppers()
	if err != nil {
		t.Fatal(err)
	}
	var parts []data.Parts
	for _, p := range simulate.Partition(rows, regions, 3, 0) {
		parts = append(parts, data.Split(schema, p, 0))
	}
	dir, network := t.TempDir(), simulate.NewNetwork()
	f, err := simulate.Start(t.Context(), simulate.FederationConfig{
		Dir: filepath.Join(dir, "site"), Cluster: "shop", Coordinators: 3, Schema: schema, Parts: parts,
		Network: network, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &consoleSite{f, dir}
	s.train(t, schema, len(parts))
	s.enrolHostile(t, network)
	return s
}

func (s *consoleSite) train(t *testing.T, schema *data.Schema, nodes int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	spec := simulate.PurchaseJob(schema, nodes, 4, 0)
	spec.StudentRows, spec.StudentEpochs = 64, 1
	spec.GateStudentPpm = 0 // the student misses its gate
	if _, err := s.Operator().SubmitJob(ctx, &choirv1.SubmitJobRequest{Spec: spec}); err != nil {
		t.Fatal(err)
	}
	status, err := s.WaitJob(ctx, spec.Name, nil)
	if err != nil || status.State != "finished" {
		t.Fatalf("job %v: %v", status, err)
	}
}

func (s *consoleSite) enrolHostile(t *testing.T, network *simulate.Network) {
	t.Helper()
	reply, err := s.Operator().CreateToken(t.Context(), &choirv1.CreateTokenRequest{
		LifetimeMs: 3_600_000, Labels: map[string]string{"note": hostile, "site": strings.Repeat("wide", 30)},
	})
	if err != nil {
		t.Fatal(err)
	}
	token, err := seal.ParseToken(reply.Token)
	if err != nil {
		t.Fatal(err)
	}
	config := node.DefaultConfig()
	config.Name, config.Dir = "stranger", filepath.Join(s.dir, "stranger")
	deps := node.Deps{Log: slog.New(slog.DiscardHandler), Dial: network.Dialer("stranger"), Now: time.Now, Rand: rand.Reader}
	if err := node.Enrol(t.Context(), config, deps, token); err != nil {
		t.Fatal(err)
	}
}

// context writes the context of a new person.
func (s *consoleSite) context(t *testing.T, role seal.Role) string {
	t.Helper()
	dir := t.TempDir()
	cred, err := s.Credential(role, "ada")
	if err != nil {
		t.Fatal(err)
	}
	if err := saveContext(dir, contextFile{"shop", s.Fingerprint(), s.Addresses()}, seal.LineageFrom(s.Root())); err != nil {
		t.Fatal(err)
	}
	if err := saveCredential(dir, role, cred); err != nil {
		t.Fatal(err)
	}
	return dir
}

// openConsole runs `choir console` and returns the address that it prints. It must end well when it is interrupted.
func openConsole(t *testing.T, dir string) string {
	t.Helper()
	ctx, interrupt := context.WithCancel(t.Context())
	out, w := io.Pipe()
	var errs bytes.Buffer
	done := make(chan int, 1)
	go func() {
		code := run(ctx, []string{"console", "--context", dir, "--no-browser"}, &terminal{out: w, err: &errs})
		_ = w.Close()
		done <- code
	}()
	var url string
	if _, err := fmt.Fscanln(out, &url); err != nil {
		interrupt()
		<-done
		t.Fatalf("no address: %v; %s", err, errs.String())
	}
	t.Cleanup(func() {
		interrupt()
		if code := <-done; code != exitOK {
			t.Errorf("choir console ended with %d: %s", code, errs.String())
		}
	})
	return url
}

// host is an address without its path.
func host(url string) string { return strings.Join(strings.SplitN(url, "/", 4)[:3], "/") }

// reader is a browser of few words.
type reader struct {
	*testing.T
	http.Client
}

func newReader(t *testing.T) *reader {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{t, http.Client{Jar: jar, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}}
	t.Cleanup(r.CloseIdleConnections)
	return r
}

// read gets a page; change may alter the request.
func (r *reader) read(url string, change func(*http.Request)) (*http.Response, string) {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, url, nil)
	if err != nil {
		r.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	reply, err := r.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		r.Fatal(err)
	}
	return reply, string(body)
}

// The console, from the outside in: who gets to the pages, and what survives the death of a coordinator.
func TestConsole(t *testing.T) {
	s := startSite(t)
	t.Run("lets in one browser only", func(t *testing.T) { testOneBrowser(t, s) })
	t.Run("is for officers and auditors, too", func(t *testing.T) { testOtherRoles(t, s) })
	t.Run("keeps a lying coordinator from the browser", func(t *testing.T) { testLiar(t, s) })
	t.Run("shows no half of a page", func(t *testing.T) { testBreaksOff(t, s) })
	t.Run("in a browser", func(t *testing.T) { testBrowser(t, s) })
	t.Run("outlives coordinators", func(t *testing.T) { testOutlives(t, s) }) // last: it kills
}

func testOneBrowser(t *testing.T, s *consoleSite) {
	url := openConsole(t, s.context(t, seal.RoleOperator))
	if !strings.HasPrefix(url, "http://127.0.0.1:") {
		t.Fatalf("the address is %s", url)
	}
	browser, other := newReader(t), newReader(t)
	refused := func(what string, want int, r *reader, url string, change func(*http.Request)) {
		t.Helper()
		reply, body := r.read(url, change)
		if reply.StatusCode != want || strings.Contains(body, "<html") || len(reply.Cookies()) > 0 {
			t.Errorf("%s: %s, %q, cookies %v; want %d", what, reply.Status, body, reply.Cookies(), want)
		}
	}
	refused("without having opened", http.StatusForbidden, browser, host(url)+"/", nil)
	refused("a wrong secret", http.StatusForbidden, browser, url[:len(url)-1]+"_", nil)
	refused("the right one under another name", http.StatusMisdirectedRequest, browser, url, func(r *http.Request) { r.Host = "evil.example" })
	refused("a request to look only", http.StatusForbidden, browser, url, func(r *http.Request) { r.Method = http.MethodHead })

	reply, body := browser.read(url, nil)
	cookies := reply.Cookies()
	if reply.StatusCode != http.StatusOK || len(cookies) != 1 || !strings.Contains(body, `content="0;url=/"`) {
		t.Fatalf("open: %s, %q, cookies %v", reply.Status, body, cookies)
	}
	if c := cookies[0]; !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || strings.Contains(url, c.Value) || c.Domain != "" {
		t.Errorf("cookie %+v", c)
	}
	if reply, body := browser.read(host(url)+"/", nil); reply.StatusCode != http.StatusOK || !strings.Contains(body, "<h1>Cluster</h1>") {
		t.Errorf("the browser that opened it: %s, %q", reply.Status, body)
	}
	if reply, _ := browser.read(url, nil); reply.StatusCode != http.StatusSeeOther || reply.Header.Get("Location") != "/" {
		t.Errorf("opened again: %s", reply.Status)
	}
	refused("the secret again, elsewhere", http.StatusForbidden, other, url, nil)
	refused("a guessed cookie", http.StatusForbidden, other, host(url)+"/", func(r *http.Request) {
		r.AddCookie(&http.Cookie{Name: cookies[0].Name, Value: "guess"})
	})
	refused("the right cookie under another name", http.StatusMisdirectedRequest, browser, host(url)+"/", func(r *http.Request) {
		r.Host = "localhost:" + strings.TrimPrefix(host(url), "http://127.0.0.1:")
		r.AddCookie(cookies[0])
	})
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"} {
		refused(method, http.StatusMethodNotAllowed, browser, host(url)+"/", func(r *http.Request) { r.Method = method })
	}
}

func testOtherRoles(t *testing.T, s *consoleSite) {
	for _, role := range []seal.Role{seal.RoleOfficer, seal.RoleAuditor} {
		url := openConsole(t, s.context(t, role))
		r := newReader(t)
		r.read(url, nil)
		if reply, body := r.read(host(url)+"/nodes", nil); reply.StatusCode != http.StatusOK || !strings.Contains(body, "node-01") {
			t.Errorf("%s: %s", role, reply.Status)
		}
	}
}

// lie starts a server that has a coordinator's certificate, and returns its address.
func (s *consoleSite) lie(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	cred, err := s.Credential(seal.RoleCoordinator, "liar")
	if err != nil {
		t.Fatal(err)
	}
	liar := httptest.NewUnstartedServer(handler)
	liar.Listener = tls.NewListener(liar.Listener, seal.ServerTLS(cred, seal.LineageFrom(s.Root()), time.Now, []string{"http/1.1"}, func(seal.Identity) error { return nil }))
	liar.Start()
	t.Cleanup(liar.Close)
	return liar.Listener.Addr().String()
}

// auditor writes an auditor's context with addresses of its own.
func (s *consoleSite) auditor(t *testing.T, addresses ...string) string {
	t.Helper()
	dir := s.context(t, seal.RoleAuditor)
	if err := saveContext(dir, contextFile{"shop", s.Fingerprint(), addresses}, seal.LineageFrom(s.Root())); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A page that breaks off comes whole from the next coordinator.
func testBreaksOff(t *testing.T, s *consoleSite) {
	broken := s.lie(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "<h1>half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	url := openConsole(t, s.auditor(t, broken, s.Addresses()[0]))
	r := newReader(t)
	r.read(url, nil)
	if reply, body := r.read(host(url)+"/", nil); reply.StatusCode != http.StatusOK || !strings.HasSuffix(strings.TrimSpace(body), "</html>") {
		t.Errorf("%s: %q", reply.Status, body)
	}
}

// What a coordinator says about how its page may be treated does not count.
func testLiar(t *testing.T, s *consoleSite) {
	liar := s.lie(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") != "" || r.Header.Get("Referer") != "" || r.Header.Get("User-Agent") == "browser" {
			t.Errorf("the coordinator is told %v", r.Header)
		}
		w.Header().Set("Content-Security-Policy", "script-src *")
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Refresh", "0;url=https://evil.example/")
		w.Header().Set("Access-Control-Allow-Origin", "*")
		_, _ = io.WriteString(w, "a page")
	})
	url := openConsole(t, s.auditor(t, liar))
	r := newReader(t)
	r.read(url, nil)
	reply, body := r.read(host(url)+"/", func(r *http.Request) {
		r.Header.Set("User-Agent", "browser")
		r.Header.Set("Referer", "there")
	})
	if body != "a page" || reply.Header.Get("Content-Security-Policy") != consolePolicy {
		t.Errorf("%q under %q", body, reply.Header.Get("Content-Security-Policy"))
	}
	for _, name := range []string{"Set-Cookie", "Refresh", "Access-Control-Allow-Origin"} {
		if reply.Header.Get(name) != "" {
			t.Errorf("%s is %q", name, reply.Header.Get(name))
		}
	}
}

// Pages go on when the coordinator that serves them dies; when all are dead, the page says so and tries again.
func testOutlives(t *testing.T, s *consoleSite) {
	dir := s.context(t, seal.RoleOperator)
	url := openConsole(t, dir)
	f, err := contextFlag{dir}.open(&terminal{out: io.Discard, err: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	p := newConsoleProxy(f)
	defer p.transport.CloseIdleConnections()
	r := newReader(t)
	r.read(url, nil)
	var dead []string
	for range s.Coordinators() {
		reply, body := r.read(host(url)+"/", nil)
		_, after, _ := strings.Cut(body, "as coordinator ")
		name, _, found := strings.Cut(after, " sees it")
		if reply.StatusCode != http.StatusOK || !found || slices.Contains(dead, name) {
			t.Fatalf("with %q dead, %q answers %s: %q", dead, name, reply.Status, body)
		}
		first := p.addresses[0]
		if _, err := p.ask(t.Context(), "/style.css"); err != nil || p.addresses[0] != first && len(dead) == 0 || p.addresses[0] == first && len(dead) > 0 {
			t.Errorf("with %q dead, %s is asked first: %v", dead, p.addresses[0], err)
		}
		s.Kill(name)
		dead = append(dead, name)
	}
	reply, body := r.read(host(url)+"/", nil)
	if reply.StatusCode != http.StatusBadGateway || !strings.Contains(body, "no coordinator answers") || reply.Header.Get("Refresh") == "" {
		t.Errorf("with nobody alive: %s, %q", reply.Status, body)
	}
	_, errs, code := choir(t, "console", "--no-browser", "--context", dir)
	if code != exitFail || !strings.Contains(errs, "no coordinator answers") || !strings.Contains(errs, "hint: ") {
		t.Errorf("choir console with nobody alive: %d, %q", code, errs)
	}
}

// browserPath finds a browser that speaks the DevTools protocol.
func browserPath(t *testing.T) string {
	t.Helper()
	names := []string{"chromium", "chromium-browser", "google-chrome", "chrome"}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skipf("no browser: none of %s is on the path", strings.Join(names, ", "))
	return ""
}

// tab is a page in a real browser.
type tab struct {
	*testing.T
	ctx context.Context

	mu         sync.Mutex // guards complaints
	complaints []string
}

// openTab starts a headless browser. What it complains about in its console fails the test.
func openTab(t *testing.T) *tab {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(browserPath(t)),
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-dev-shm-usage", true)) // a container has none of them
	limit, cancelTime := context.WithTimeout(t.Context(), time.Minute)
	ctx, cancelBrowser := chromedp.NewExecAllocator(limit, options...)
	ctx, cancelTab := chromedp.NewContext(ctx)
	b := &tab{T: t, ctx: ctx}
	t.Cleanup(func() {
		cancelTab()
		cancelBrowser()
		cancelTime()
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, c := range b.complaints {
			t.Errorf("the browser complains: %s", c)
		}
	})
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *cdplog.EventEntryAdded:
		if e.Entry.Level == cdplog.EntryLevelError || e.Entry.Level == cdplog.EntryLevelWarning {
			b.complaints = append(b.complaints, e.Entry.Text+" "+e.Entry.URL)
		}
	case *cdpruntime.EventExceptionThrown:
		b.complaints = append(b.complaints, e.ExceptionDetails.Text)
	case *cdpruntime.EventConsoleAPICalled:
		b.complaints = append(b.complaints, fmt.Sprintf("console.%s", e.Type))
	}
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.Fatal(err)
	}
}

// get runs an action for its value.
func get[T any](b *tab, a chromedp.Action[T]) T {
	b.Helper()
	v, err := chromedp.Run(b.ctx, a)
	if err != nil {
		b.Fatal(err)
	}
	return v
}

// shape makes the window as wide and as dark as a look wants it.
func (b *tab) shape(l look) {
	b.Helper()
	b.do(chromedp.EmulateViewport(l.width, 800), chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: l.scheme}},
		})
		return err
	}))
}

// look is how a page is looked at.
type look struct {
	name, scheme string
	width        int64
}

var looks = []look{
	{"1200-light", "light", 1200}, {"1200-dark", "dark", 1200}, {"360-light", "light", 360}, {"360-dark", "dark", 360},
}

// see looks at the page in every way, and keeps pictures if CHOIR_SCREENSHOTS names a directory.
func (b *tab) see(page string) {
	b.Helper()
	for _, l := range looks {
		b.shape(l)
		width := get(b, chromedp.Evaluate[int64](`document.documentElement.scrollWidth`))
		paper := get(b, chromedp.Evaluate[string](`getComputedStyle(document.body).backgroundColor`))
		if width > l.width {
			b.Errorf("%s, %s: the page is %d pixels wide", page, l.name, width)
		}
		if dark := paper == "rgb(22, 25, 28)"; dark != (l.scheme == "dark") {
			b.Errorf("%s, %s: the paper is %s", page, l.name, paper)
		}
		if dir := os.Getenv("CHOIR_SCREENSHOTS"); dir != "" {
			picture := get(b, chromedp.FullScreenshot(100))
			if err := os.WriteFile(filepath.Join(dir, page+"-"+l.name+".png"), picture, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// text is the page's visible text, with every run of white space as one space.
func (b *tab) text() string {
	b.Helper()
	return strings.Join(strings.Fields(get(b, chromedp.Evaluate[string](`document.body.innerText`))), " ")
}

// testBrowser clicks through all pages as a person would.
func testBrowser(t *testing.T, s *consoleSite) {
	if dir := os.Getenv("CHOIR_SCREENSHOTS"); dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b := openTab(t)
	b.do(chromedp.Navigate(openConsole(t, s.context(t, seal.RoleOperator))))
	for _, step := range []struct {
		page  string
		click string // an XPath
		head  string // the heading that appears
		texts []string
	}{
		{"cluster", ``, "Cluster", []string{"shop", "3 coordinators, 3 in sight", "c1", "c2", "c3", "leader", "alive", s.Fingerprint()}},
		{"nodes", `//nav/a[.="Nodes"]`, "Nodes", []string{"4 nodes enrolled, 3 present", "node-01", "stranger", "away", "note=" + hostile}},
		{"jobs", `//nav/a[.="Jobs"]`, "Jobs", []string{"1 training task", "purchase", "finished", "4 of 4", "purchase 1"}},
		{"job", `//td/a[.="purchase"]`, "purchase", []string{"AUC on the nodes' validation parts", "Cross entropy", "statistics", "training", "evaluation", "closed", "Incidents None", "Settings", "2 epochs of batch 32"}},
		{"releases", `//nav/a[.="Releases"]`, "Releases", []string{"1 published version", "purchase 1", "float32", "int8", "student"}},
		{"release", `//td/a[.="purchase 1"]`, "purchase version 1", []string{"published", "withheld", "the gate is 0", "Digest"}},
		{"records", `//nav/a[.="Records"]`, "Records", []string{"genesis", "enrolled", "round closed", "released", "Root of the tree"}},
		{"record", `(//tr[td="batch accepted"]//a)[1]`, "", []string{"batch accepted", "Accepted", "node-0", "Leaf"}},
		{"cluster", `//nav/a[.="Cluster"]`, "Cluster", nil},
	} {
		if step.click != "" {
			b.do(chromedp.Click(chromedp.Search(step.click)))
		}
		heading := fmt.Sprintf(`//h1[.=%q]`, step.head)
		if step.head == "" {
			heading = `//h1[starts-with(., "Record ")]`
		}
		b.do(chromedp.WaitVisible(chromedp.Search(heading)))
		text := b.text()
		for _, want := range step.texts {
			if !strings.Contains(strings.ToLower(text), strings.ToLower(want)) {
				t.Errorf("%s: %q is not on the page: %s", step.page, want, text)
			}
		}
		b.see(step.page)
		b.shape(looks[0])
	}
	if title := get(b, chromedp.Title()); title != "Cluster · shop" {
		t.Errorf("the title is %q", title)
	}
}
