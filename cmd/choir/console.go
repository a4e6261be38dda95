package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"choir.example/privacy/seal"
)

// consoleCommand is `choir console`.
type consoleCommand struct {
	contextFlag
	outputFlag
	NoBrowser bool `help:"Print the address only."`
}

// Help is what --help explains.
func (consoleCommand) Help() string {
	return `The pages are read-only: cluster, nodes, jobs with their curves, releases, records of the audit log. They come from a
coordinator, over mutual TLS with the context's credential, through an address of this machine that only the browser
that opens it first can use. When the coordinator dies, the next one answers. Ctrl-C ends it.

Example: choir console --context ~/.config/choir`
}

// Run serves the pages until ctx ends.
func (c *consoleCommand) Run(ctx context.Context, t *terminal) error {
	f, err := c.open(t)
	if err != nil {
		return err
	}
	if f.role == seal.RoleOperator { // learns new addresses; who only reads asks those of the own context
		if _, err := f.status(ctx); err != nil {
			return err
		}
	}
	p := newConsoleProxy(f)
	defer p.transport.CloseIdleConnections()
	reply, err := p.ask(ctx, "/style.css")
	if err != nil {
		return &hinted{err, "does a coordinator run? The addresses stand in " + f.dir + "/context.yaml"}
	}
	if reply.code != http.StatusOK { // it was only asked whether anybody answers
		return fmt.Errorf("the coordinator refuses %s %s: %s", f.role, f.name, reply.body)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("open the console: %w", err)
	}
	p.serveAt(l.Addr().String())
	fmt.Fprintf(t.err, "the console of %s, seen as %s %s; Ctrl-C ends it\n", f.Cluster, f.role, f.name)
	if err := c.tell(t, t.out, map[string]any{"url": p.url()}, "%s", p.url()); err != nil {
		return err
	}
	if !c.NoBrowser {
		if err := openBrowser(p.url()); err != nil {
			fmt.Fprintf(t.err, "no browser could be opened (%v): open the address yourself\n", err)
		}
	}
	return p.serve(ctx, l)
}

// openBrowser shows an address to the person at this machine.
func openBrowser(url string) error {
	command := []string{"xdg-open", url}
	switch runtime.GOOS {
	case "darwin":
		command[0] = "open"
	case "windows":
		command = []string{"rundll32", "url.dll,FileProtocolHandler", url}
	}
	cmd := exec.Command(command[0], command[1:]...)
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release() // some last as long as the browser, which stays open
}

const (
	consoleDial  = 3 * time.Second  // for a connection to a coordinator, handshake included
	consoleReply = 10 * time.Second // for all of it

	maxConsolePage = 16 << 20 // bytes
)

// consoleProxy lets one browser read a coordinator's pages. A secret in the address, good for one use, turns into a
// cookie that no other site and no script can use; without it, or under another host name, nothing is answered.
type consoleProxy struct {
	transport *http.Transport
	host      string // 127.0.0.1:port
	secret    string
	session   string

	mu        sync.Mutex // guards the fields below
	addresses []string   // of coordinators; the one that answered last comes first
	opened    bool       // the secret is used up
}

func newConsoleProxy(f *federation) *consoleProxy {
	config := f.tls("http/1.1")
	return &consoleProxy{
		secret: rand.Text(), session: rand.Text(), addresses: slices.Clone(f.Addresses),
		transport: &http.Transport{
			DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, consoleDial)
				defer cancel()
				return (&tls.Dialer{Config: config}).DialContext(ctx, network, address)
			},
			IdleConnTimeout: time.Minute,
		},
	}
}

func (p *consoleProxy) serveAt(host string) { p.host = host }

// url is the address to open, once.
func (p *consoleProxy) url() string { return "http://" + p.host + "/open/" + p.secret }

// cookie is the name of the session's cookie. Browsers send cookies to all ports of a host, so the port is in it.
func (p *consoleProxy) cookie() string {
	_, port, _ := strings.Cut(p.host, ":")
	return "choir-console-" + port
}

// serve answers until ctx ends.
func (p *consoleProxy) serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: p, BaseContext: func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case <-ctx.Done():
		_ = server.Close() // the browser asks again if it wants more
		<-served
		return nil
	case err := <-served:
		return fmt.Errorf("serve the console: %w", err)
	}
}

// ServeHTTP answers the browser.
func (p *consoleProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", consolePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	switch secret, opening := strings.CutPrefix(r.URL.Path, "/open/"); {
	case r.Host != p.host:
		http.Error(w, "this is the console of choir; open the address that it printed", http.StatusMisdirectedRequest)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "the console is for reading only", http.StatusMethodNotAllowed)
	case p.known(r):
		if opening {
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		p.forward(w, r)
	case opening && r.Method == http.MethodGet && p.open(secret):
		http.SetCookie(w, &http.Cookie{Name: p.cookie(), Value: p.session, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
		h.Set("Content-Type", "text/html; charset=utf-8")
		// A redirect would still count as coming from elsewhere, and the cookie would not go with it.
		_, _ = io.WriteString(w, `<!doctype html><meta http-equiv="refresh" content="0;url=/"><title>choir</title><link rel="icon" href="/icon.svg"><a href="/">console</a>`)
	default:
		http.Error(w, "only the browser that opened the printed address first may see this; run choir console again for a new one", http.StatusForbidden)
	}
}

// known reports whether the browser is the one that opened the address.
func (p *consoleProxy) known(r *http.Request) bool {
	cookie, err := r.Cookie(p.cookie())
	return err == nil && equalSecrets(cookie.Value, p.session)
}

// open uses the secret up.
func (p *consoleProxy) open(secret string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opened || !equalSecrets(secret, p.secret) {
		return false
	}
	p.opened = true
	return true
}

func equalSecrets(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// consolePolicy allows the pages' style sheet and icon. It is set here, so that a coordinator that lies can lie, but run
// no script in the browser.
const consolePolicy = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// forward passes on a page that a coordinator answers, and nothing else: of the browser's request it passes the address
// only, of the answer what says how to show it.
func (p *consoleProxy) forward(w http.ResponseWriter, r *http.Request) {
	page := r.URL.RequestURI()
	if !strings.HasPrefix(page, "/") { // it would become part of the coordinator's name
		http.Error(w, "not a page", http.StatusBadRequest)
		return
	}
	reply, err := p.ask(r.Context(), page)
	if err != nil {
		w.Header().Set("Refresh", "3") // a cluster that restarts is back soon
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", reply.header.Get("Content-Type"))
	if seconds, err := strconv.ParseUint(reply.header.Get("Refresh"), 10, 16); err == nil { // the same page, not another
		w.Header().Set("Refresh", strconv.FormatUint(seconds, 10))
	}
	w.WriteHeader(reply.code)
	_, _ = w.Write(reply.body) // the browser is gone
}

// consoleAnswer is a whole page.
type consoleAnswer struct {
	code   int
	header http.Header
	body   []byte
}

// ask gets a page from the first coordinator that answers, beginning with the one that did last. One that dies in the
// middle of its answer has not answered; one that says that its page may be old counts if no other does better.
func (p *consoleProxy) ask(ctx context.Context, page string) (*consoleAnswer, error) {
	p.mu.Lock()
	addresses := slices.Clone(p.addresses)
	p.mu.Unlock()
	var failed []error
	var doubtful *consoleAnswer
	for _, address := range addresses {
		answer, err := p.askOne(ctx, address, page)
		switch {
		case err != nil:
			failed = append(failed, fmt.Errorf("%s: %w", address, err))
		case answer.header.Get("Choir-Unconfirmed") != "":
			doubtful = cmp.Or(doubtful, answer)
		default:
			p.prefer(address)
			return answer, nil
		}
	}
	if doubtful != nil {
		return doubtful, nil
	}
	return nil, fmt.Errorf("no coordinator answers: %w", errors.Join(failed...))
}

// askOne gets a page from one coordinator.
func (p *consoleProxy) askOne(ctx context.Context, address, page string) (*consoleAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, consoleReply)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+page, nil)
	if err != nil {
		return nil, err
	}
	reply, err := p.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(io.LimitReader(reply.Body, maxConsolePage+1))
	if err == nil && len(body) > maxConsolePage {
		err = fmt.Errorf("a page of more than %d bytes", maxConsolePage)
	}
	return &consoleAnswer{reply.StatusCode, reply.Header, body}, err
}

// prefer puts an address first.
func (p *consoleProxy) prefer(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.addresses, address); i > 0 {
		p.addresses = slices.Insert(slices.Delete(p.addresses, i, i+1), 0, address)
	}
}
