package coordinator

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// browser is a client of a coordinator's pages, over TLS on its real port.
func (f *testFederation) browser(name string, cred *seal.Credential) *http.Client {
	f.t.Helper()
	transport := &http.Transport{DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		d := tls.Dialer{Config: seal.ClientTLS(cred, f.root.Certificate(), time.Now, protoHTTP, nil)}
		return d.DialContext(ctx, network, f.member(name).cfg.Address)
	}}
	f.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// ask makes one request and reads all of the answer.
func (f *testFederation) ask(c *http.Client, method, path string) (*http.Response, string) {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.ctx(), method, "https://console"+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	reply, err := c.Do(req)
	if err != nil {
		f.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		f.t.Fatalf("%s %s: %v", method, path, err)
	}
	return reply, string(body)
}

// People read every page; nothing can be done there, and nothing that others chose to write becomes markup.
func TestConsolePages(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 3, nil, Observer{})
	nodes := f.enrol("a", "b")
	f.submit(testJob(t, 1))
	f.statistics(nodes)
	f.hostileNode("c1", "hostile", `<script>alert("label")</script>`)
	for _, role := range []seal.Role{seal.RoleOperator, seal.RoleOfficer, seal.RoleAuditor} {
		c := f.browser("c1", f.certify(role, "ada"))
		for path, want := range map[string]string{
			"/": "3 coordinators, 3 in sight", "/nodes": "hostile", "/jobs": ">job</a>", "/jobs/job": "statistics",
			"/releases": "Nothing has been published yet", "/records": "genesis", "/records/0": f.root.Fingerprint(),
		} {
			reply, body := f.ask(c, http.MethodGet, path)
			if reply.StatusCode != http.StatusOK || !strings.Contains(body, want) {
				t.Errorf("%s at %s: %s, want a page with %q: %s", role, path, reply.Status, want, body)
			}
			csp := reply.Header.Get("Content-Security-Policy")
			if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "script-src") {
				t.Errorf("%s: policy %q", path, csp)
			}
			if strings.Contains(body, "<script") {
				t.Errorf("%s: a script in %s", path, body)
			}
		}
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions} {
			if reply, body := f.ask(c, method, "/jobs/job"); reply.StatusCode != http.StatusMethodNotAllowed || strings.Contains(body, "statistics") {
				t.Errorf("%s %s: %s", role, method, reply.Status)
			}
		}
	}
}

// hostileNode enrols a node whose label is not what a label should be.
func (f *testFederation) hostileNode(coordinator, name, label string) {
	f.t.Helper()
	reply, err := f.operators().CreateToken(f.ctx(), &choirv1.CreateTokenRequest{LifetimeMs: 60_000, Labels: map[string]string{"note": label}})
	if err != nil {
		f.t.Fatal(err)
	}
	token, err := seal.ParseToken(reply.Token)
	if err != nil {
		f.t.Fatal(err)
	}
	key, err := seal.NewKey(rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.enrolAt(coordinator, enrolment(token, name, key)); err != nil {
		f.t.Fatal(err)
	}
	f.wait(coordinator, "the node is enrolled", func(s *state.State) bool { _, ok := s.Nodes[name]; return ok })
}

// A certificate that expires while the browser keeps its connection is worth nothing from then on.
func TestConsoleLooksAgain(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	c := f.browser("c1", f.certifyFor(seal.RoleAuditor, "brief", time.Now(), 2*time.Second))
	if reply, _ := f.ask(c, http.MethodGet, "/records"); reply.StatusCode != http.StatusOK {
		t.Fatal(reply.Status)
	}
	f.eventually("the certificate has expired", func() bool {
		reply, body := f.ask(c, http.MethodGet, "/records")
		return reply.StatusCode == http.StatusUnauthorized && strings.Contains(body, seal.ErrExpired.Error())
	})
}

// visit asks for a page past the handshake.
func (f *testFederation) visit(name string, cred *seal.Credential) int {
	f.t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.TLS = &tls.ConnectionState{}
	if cred != nil {
		for _, der := range cred.Chain {
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				f.t.Fatal(err)
			}
			r.TLS.PeerCertificates = append(r.TLS.PeerCertificates, cert)
		}
	}
	w := httptest.NewRecorder()
	f.member(name).console().ServeHTTP(w, r)
	return w.Code
}

// Who is revoked sees no page more, with the connection that was open or a new one.
func TestConsoleIsClosedToTheRevoked(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	cred := f.certify(seal.RoleAuditor, "eve")
	c := f.browser("c1", cred)
	if reply, _ := f.ask(c, http.MethodGet, "/records"); reply.StatusCode != http.StatusOK {
		t.Fatal(reply.Status)
	}
	if _, err := f.operators().RevokePerson(f.ctx(), &choirv1.RevokePersonRequest{Fingerprint: seal.Fingerprint(cred.Chain[0])}); err != nil {
		t.Fatal(err)
	}
	f.eventually("nothing is answered", func() bool {
		reply, err := c.Get("https://console/records")
		if err != nil {
			return true
		}
		_ = reply.Body.Close()
		return reply.StatusCode == http.StatusUnauthorized
	})
	if err := f.knock("c1", protoHTTP, cred); err == nil {
		t.Error("a new connection is let in")
	}
	if code := f.visit("c1", cred); code != http.StatusUnauthorized {
		t.Errorf("past the handshake: %d", code)
	}
}

// The pages look at who comes by themselves, too, whatever the handshake let through.
func TestConsoleRefusesOtherRoles(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	welcome, strangers := f.people()
	for _, p := range welcome {
		if code := f.visit("c1", p.cred); (code == http.StatusOK) != slices.Contains(mayConnect[protoHTTP], p.role) {
			t.Errorf("%s: %d", p.who, code)
		}
	}
	for _, p := range strangers {
		if p.who == "operator whose key is another" {
			continue // which only a handshake can tell
		}
		if code := f.visit("c1", p.cred); code == http.StatusOK {
			t.Errorf("%s: %d", p.who, code)
		}
	}
}
