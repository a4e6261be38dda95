package node

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// renewer answers Renew as a coordinator that checks what it must: name, key, signature, time.
func (p *party) renewer(key []byte, life time.Duration) func(*choirv1.RenewRequest) (*choirv1.EnrolReply, error) {
	issuer := p.issuer("c1")
	return func(r *choirv1.RenewRequest) (*choirv1.EnrolReply, error) {
		if !seal.VerifyRenewal(key, "test", r.Name, r.TimeMs, r.Signature) {
			return nil, status.Error(codes.PermissionDenied, "renew: not signed by the enrolled key")
		}
		if off := time.Since(time.UnixMilli(r.TimeMs)); off.Abs() > time.Hour {
			return nil, status.Errorf(codes.InvalidArgument, "renew: the node's clock is %v off", off)
		}
		chain, err := issuer.CertifyNode(r.Name, key, time.Now(), life)
		return &choirv1.EnrolReply{Chain: chain, Root: p.root.Certificate().Raw}, err
	}
}

// expires is when the certificate that lies in a directory ends.
func expires(t *testing.T, dir string) time.Time {
	t.Helper()
	leaf, err := x509.ParseCertificate(loadTestIdentity(t, dir).chain[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf.NotAfter
}

// shorten gives the node a certificate of another life.
func (n *Node) shorten(t *testing.T, p *party, life time.Duration) {
	t.Helper()
	chain, err := p.issuer("c1").CertifyNode(n.id.name, public(n.id.key), time.Now(), life)
	if err == nil {
		err = n.keep(chain)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A node that runs for months renews its certificate by itself, each time with half of its life left, keeps it over
// restarts, and is never without.
func TestCertificatesRenewThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, dir := newParty(t, "test"), t.TempDir()
		s := newShop().service()
		p.coordinator("c1", s)
		s.poll = hold
		n := p.node(dir, nil, "c1")
		const life = 10 * time.Hour
		n.shorten(t, p, life)
		answer, renewals := p.renewer(public(n.id.key), life), 0
		first := expires(t, dir)
		s.renew = func(r *choirv1.RenewRequest) (*choirv1.EnrolReply, error) {
			renewals++
			if left := time.Until(expires(t, dir)); left < life*4/10 || left > life*7/10 {
				t.Errorf("renewal %d with %v left", renewals, left)
			}
			return answer(r)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Hour)
		defer cancel()
		if err := n.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if renewals < 8 || renewals > 15 {
			t.Errorf("%d renewals in 50 hours", renewals)
		}
		if got := expires(t, dir); !got.After(first) || got.Before(time.Now()) {
			t.Errorf("the certificate kept ends at %v", got)
		}
	})
}

// A node that was switched off until its certificate had ended comes back by itself, because the request is signed and
// needs no certificate.
func TestExpiredCertificateIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, dir := newParty(t, "test"), t.TempDir()
		s := newShop().service()
		polled := make(chan struct{}, 1)
		s.poll = func(ctx context.Context, r *choirv1.PollRequest) (*choirv1.PollReply, error) {
			select {
			case polled <- struct{}{}:
			default:
			}
			return hold(ctx, r)
		}
		n := p.node(dir, nil, "c1")
		time.Sleep(45 * 24 * time.Hour) // its 30 days are over
		s.renew = p.renewer(public(n.id.key), 7*24*time.Hour)
		p.coordinator("c1", s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		select {
		case <-polled:
		case <-ctx.Done():
			t.Errorf("it does not poll: %s", p.log)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if left := time.Until(expires(t, dir)); left < 6*24*time.Hour {
			t.Errorf("the new certificate ends in %v", left)
		}
	})
}

// A certificate that is not this node's is not taken, whoever sends it, and the old one stays.
func TestRenewalTakesOwnCertificatesOnly(t *testing.T) {
	p, dir := newParty(t, "test"), t.TempDir()
	other := newParty(t, "test")
	s := newShop().service()
	p.coordinator("c1", s)
	n := p.node(dir, nil, "c1")
	before := expires(t, dir)
	for name, c := range map[string]struct {
		renew func(*choirv1.RenewRequest) (*choirv1.EnrolReply, error)
		say   string
	}{
		"another key": {p.renewer(public(p.key()), time.Hour), "not signed by the enrolled key"},
		"another's": {func(*choirv1.RenewRequest) (*choirv1.EnrolReply, error) {
			return &choirv1.EnrolReply{Chain: p.identity("node-02").chain}, nil
		}, "the certificate is for node node-02"},
		"another federation": {func(*choirv1.RenewRequest) (*choirv1.EnrolReply, error) {
			return &choirv1.EnrolReply{Chain: other.identity("node-01").chain}, nil
		}, "not of this federation"},
		"none": {func(*choirv1.RenewRequest) (*choirv1.EnrolReply, error) { return &choirv1.EnrolReply{}, nil }, ""},
	} {
		s.renew = c.renew
		_, err := n.renewed(t.Context(), time.Now())
		if wantError(t, err, c.say); !expires(t, dir).Equal(before) {
			t.Errorf("%s: the certificate changed", name)
		}
	}
}

// A machine without a clock connects all the same: it takes the time at which its certificate was made.
func TestClockAtBoot(t *testing.T) {
	p, dir := newParty(t, "test"), t.TempDir()
	n := p.node(dir, func(_ *Config, d *Deps) { d.Now = func() time.Time { return time.Unix(1000, 0) } }, "c1")
	if now := n.deps.Now(); time.Since(now) > 2*time.Hour {
		t.Errorf("the node takes it for %v", now)
	}
	if p.log.count("level=WARN", "clock must be wrong") != 1 {
		t.Errorf("the log says %s", p.log)
	}
	right := newClock(time.Now, time.Now().Add(-time.Hour))
	if off := time.Since(right.Now()); off.Abs() > time.Minute {
		t.Errorf("a right clock is corrected by %v", off)
	}
}

// Where a time does not fit, the message names the clock and what it says.
func TestWrongClockIsNamed(t *testing.T) {
	p := newParty(t, "test")
	r := p.registrar("c1")
	p.coordinator("c1", &service{enrol: r.enrol})
	for name, off := range map[string]time.Duration{"a day behind": -24 * time.Hour, "a day ahead": 24 * time.Hour} {
		deps := p.deps()
		deps.Now = func() time.Time { return time.Now().Add(off) }
		err := Enrol(t.Context(), configIn(t.TempDir()), deps, p.token("c1"))
		if err == nil {
			t.Errorf("%s: enrolled", name)
		}
		wantError(t, err, "this machine's clock says "+deps.Now().UTC().Format("2006-01-02"))
	}
}

// A node's directory belongs to one federation: the token of another is refused, and nothing is changed.
func TestTokenOfAnotherFederation(t *testing.T) {
	p, other, dir := newParty(t, "test"), newParty(t, "other"), t.TempDir()
	p.node(dir, nil, "c1")
	err := Enrol(t.Context(), func() Config { c := configIn(dir); c.Name = "node-01"; return c }(), other.deps(), other.token("c1"))
	wantError(t, err, "belongs to a node of federation test", "the token is of another", "take another directory")
	if !errors.Is(err, seal.ErrForeign) {
		t.Errorf("%v is not ErrForeign", err)
	}
}

// A second process in one directory is refused with that, before it touches a port or the journal.
func TestOneProcessADirectory(t *testing.T) {
	p, dir := newParty(t, "test"), t.TempDir()
	n := p.node(dir, nil, "c1")
	_, err := New(n.cfg, p.deps())
	wantError(t, err, "another process uses this directory")
	if _, err := os.Stat(filepath.Join(dir, controlSocket)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a socket was made: %v", err)
	}
}
