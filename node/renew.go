package node

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"choir.example/internal/rpc"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// renewAgain is the pause after a renewal that did not succeed.
const renewAgain = time.Minute

// renewal is when the certificate is renewed next, and for which root that was last tried.
type renewal struct {
	due    time.Time
	root   *x509.Certificate
	warned time.Time // when it was said last that the root ends soon
}

const (
	rootNotice = 60 * 24 * time.Hour // so long before its end the root is warned of
	rootAgain  = 24 * time.Hour
)

// warnOfRoot says once a day that the root ends soon: without it no certificate counts, the node's neither.
func (n *Node) warnOfRoot() {
	now, root := n.deps.Now(), n.id.trusted()
	if root.NotAfter.Sub(now) >= rootNotice || now.Sub(n.renewal.warned) < rootAgain {
		return
	}
	n.renewal.warned = now
	n.deps.Log.Warn("the federation's root ends soon; its operator has to rotate it", "expires", root.NotAfter)
}

// fresh renews the certificate when it is due, or the federation has another root.
func (n *Node) fresh(ctx context.Context) {
	if n.renewal.root == n.id.trusted() && n.deps.Now().Before(n.renewal.due) {
		return
	}
	n.renewal.due = n.renew(ctx)
	n.renewal.root = n.id.trusted()
}

// renewDue is when a certificate is renewed: when half of its life is over, which leaves days to try again.
func renewDue(leaf *x509.Certificate) time.Time {
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
}

// renew gets a new certificate for the same key once the old one is due, also when that has expired, and at once when
// the federation has another root than the one it is of. It returns when it
// wants to be called again. A node that is refused works on for as long as its certificate lasts.
func (n *Node) renew(ctx context.Context) (again time.Time) {
	leaf, now := n.client.leaf(), n.deps.Now()
	if due := renewDue(leaf); now.Before(due) && !n.id.outdated(n.client.certificate(), now) {
		return due
	}
	chain, err := n.renewed(ctx, now)
	if err == nil {
		err = n.keep(chain)
	}
	if err != nil {
		if ctx.Err() == nil {
			n.deps.Log.Warn("certificate not renewed", "expires", leaf.NotAfter, "error", err)
		}
		return now.Add(renewAgain)
	}
	leaf = n.client.leaf()
	n.deps.Log.Info("certificate renewed", "expires", leaf.NotAfter)
	return renewDue(leaf)
}

// keep makes a new certificate durable and uses it from the next connection on.
func (n *Node) keep(chain [][]byte) error {
	id := *n.id
	id.chain = chain
	if err := id.save(n.cfg.Dir, n.box); err != nil {
		return err
	}
	n.clock.atLeast(issued(chain))
	n.client.certify(chain)
	return nil
}

// renewed asks the coordinators, one after the other, for a certificate.
func (n *Node) renewed(ctx context.Context, now time.Time) ([][]byte, error) {
	req := &choirv1.RenewRequest{
		Name: n.id.name, TimeMs: now.UnixMilli(), Chain: n.client.certificate(),
		Signature: seal.ProveRenewal(n.id.key, n.id.trusted().Subject.CommonName, n.id.name, now.UnixMilli()),
	}
	var errs []error
	for _, address := range n.client.all() {
		chain, err := n.renewalAt(ctx, address, req)
		if err == nil {
			return chain, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", address, err))
	}
	return nil, errors.Join(errs...)
}

// renewalAt asks one coordinator. The call presents no certificate, because the old one may have expired.
func (n *Node) renewalAt(ctx context.Context, address string, req *choirv1.RenewRequest) ([][]byte, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, rpc.Patience(), grpc.WithContextDialer(n.deps.Dial),
		grpc.WithTransportCredentials(credentials.NewTLS(n.client.tls(nil))))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := choirv1.NewEnrolmentClient(conn).Renew(ctx, req)
	if err != nil {
		return nil, err
	}
	return reply.Chain, n.id.accepts(reply.Chain, n.deps.Now())
}

// accepts sees that a certificate is for this node: its name, its key, its federation.
func (id *identity) accepts(chain [][]byte, now time.Time) error {
	who, err := seal.VerifyChain(chain, id.trusted(), now)
	if err != nil {
		return clockError(err, now)
	}
	if who.Role != seal.RoleNode || who.Name != id.name || !who.Key.Equal(id.key.Public().(ed25519.PublicKey)) {
		return fmt.Errorf("the certificate is for %s %s", who.Role, who.Name)
	}
	return nil
}

// clockError names the clock where a time does not fit.
func clockError(err error, now time.Time) error {
	if !errors.Is(err, seal.ErrExpired) {
		return err
	}
	return fmt.Errorf("%w; this machine's clock says %s, set it if that is wrong", err, now.UTC().Format("2006-01-02 15:04:05 MST"))
}

// clock is the machine's, corrected where it must be wrong: it never says a time before this program was built, or
// before a coordinator certified this node. So a machine that has no clock before it reaches a time server can connect.
type clock struct {
	now   func() time.Time
	floor atomic.Int64 // Unix milliseconds
}

func newClock(now func() time.Time, floor time.Time) *clock {
	c := &clock{now: now}
	c.atLeast(builtAt())
	c.atLeast(floor)
	return c
}

// atLeast raises the lower bound.
func (c *clock) atLeast(t time.Time) {
	for old := c.floor.Load(); t.UnixMilli() > old && !c.floor.CompareAndSwap(old, t.UnixMilli()); old = c.floor.Load() {
	}
}

// Now is the time.
func (c *clock) Now() time.Time {
	now, floor := c.now(), time.UnixMilli(c.floor.Load())
	if now.Before(floor) {
		return floor
	}
	return now
}

// builtAt is the time of the commit this program was built from, zero if it does not say.
func builtAt() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	i := slices.IndexFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "vcs.time" })
	if i < 0 {
		return time.Time{}
	}
	t, _ := time.Parse(time.RFC3339, info.Settings[i].Value)
	return t
}

// issued is when the youngest certificate of a chain was made.
func issued(chain [][]byte) (t time.Time) {
	for _, der := range chain {
		if c, err := x509.ParseCertificate(der); err == nil && c.NotBefore.After(t) {
			t = c.NotBefore
		}
	}
	return t
}
