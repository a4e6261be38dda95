package main

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// clusterCommand is `choir cluster`.
type clusterCommand struct {
	Status  clusterStatus  `cmd:"" help:"Who leads, which coordinators live, how far each is."`
	Joins   clusterJoins   `cmd:"" help:"List coordinators that ask to join."`
	Approve clusterApprove `cmd:"" help:"Admit a coordinator that asks to join, with the root key."`
	Remove  clusterRemove  `cmd:"" help:"End a coordinator's membership."`
	Nodes   clusterNodes   `cmd:"" help:"List nodes: labels, presence, what was charged."`
	Revoke  clusterRevoke  `cmd:"" help:"End a node's membership."`
	Renew   clusterRenew   `cmd:"" help:"Certify a coordinator's keys anew, with the root key."`

	RotateRoot clusterRotate `cmd:"" help:"Put another root key in the place of the present one."`
}

// coordinatorLife and personLife are how long certificates by the root are valid.
const (
	coordinatorLife = 2 * 365 * 24 * time.Hour
	personLife      = 365 * 24 * time.Hour
)

// clusterStatus is `choir cluster status`.
type clusterStatus struct {
	contextFlag
	outputFlag
}

// Help is what --help explains.
func (clusterStatus) Help() string {
	return `Asks the coordinators of the context, one after the other, for an answer that the leader confirms. Where there is
none, the first that answers tells what it knows, names no leader, and says why on standard error. New addresses of coordinators are kept in the context, so that
later commands can ask those, too.

Example: choir cluster status -o json`
}

// Run shows the cluster.
func (c *clusterStatus) Run(ctx context.Context, t *terminal) error {
	f, err := c.open(t)
	if err != nil {
		return err
	}
	s, err := f.status(ctx)
	if err != nil {
		return err
	}
	if s.Unconfirmed != "" {
		fmt.Fprintf(t.err, "choir: this may be old: %s\n", s.Unconfirmed)
	}
	type replica struct {
		Name    string `json:"name"`
		Address string `json:"address"`
		State   string `json:"state"`
		Applied uint64 `json:"applied"`
		Expires string `json:"certificate_expires"`
	}
	replicas := []replica{}
	tab := newTable("COORDINATOR", "ADDRESS", "STATE", "APPLIED", "CERTIFIED UNTIL")
	for _, r := range s.Replicas {
		replicas = append(replicas, replica{r.Name, r.Address, r.State, r.Applied, day(r.ExpiresMs)})
		tab.add(r.Name, r.Address, r.State, r.Applied, day(r.ExpiresMs))
	}
	root, rootEnds := "", ""
	if cert, err := x509.ParseCertificate(s.Root); err == nil {
		root, rootEnds = seal.Fingerprint(s.Root), day(cert.NotAfter.UnixMilli())
	}
	officers := []string{}
	for _, key := range s.Officers {
		officers = append(officers, hex.EncodeToString(key))
	}
	if c.json() {
		all := map[string]any{
			"cluster": s.Cluster, "leader": s.Leader, "term": s.Term, "applied": s.Applied, "replicas": replicas, "nodes": s.Nodes, "records": s.Records,
			"root": root, "root_expires": rootEnds, "officers": officers,
		}
		if s.Unconfirmed != "" {
			all["unconfirmed"] = s.Unconfirmed
		}
		return printJSON(t.out, all)
	}
	leader := s.Leader
	if leader == "" {
		leader = "nobody"
	}
	fmt.Fprintf(t.out, "%s: %s leads in term %d; %d entries applied, %d records, %d nodes\n", s.Cluster, leader, s.Term, s.Applied, s.Records, s.Nodes)
	fmt.Fprintf(t.out, "root %s, valid until %s\n", root, rootEnds)
	for _, key := range officers {
		fmt.Fprintf(t.out, "officer's key %s\n", key)
	}
	return tab.print(t.out, "no coordinators")
}

// status asks for the cluster's status and keeps the addresses it learns.
func (f *federation) status(ctx context.Context) (*choirv1.StatusReply, error) {
	s, err := f.operators().GetStatus(ctx, &choirv1.StatusRequest{})
	if status.Code(err) == codes.Unavailable {
		s, err = f.operators().GetStatus(ctx, &choirv1.StatusRequest{Unconfirmed: true})
	}
	if err != nil {
		return nil, said(err)
	}
	var addresses []string
	for _, r := range s.Replicas {
		addresses = append(addresses, r.Address)
	}
	if err := f.learn(addresses); err != nil && !os.IsPermission(err) {
		return nil, err
	}
	return s, nil
}

// clusterJoins is `choir cluster joins`.
type clusterJoins struct {
	contextFlag
	outputFlag
}

// Help is what --help explains.
func (clusterJoins) Help() string { return "Example: choir cluster joins" }

// Run lists requests.
func (c *clusterJoins) Run(ctx context.Context, t *terminal) error {
	f, err := c.open(t)
	if err != nil {
		return err
	}
	reply, err := f.operators().ListJoins(ctx, &choirv1.ListJoinsRequest{})
	if err != nil {
		return said(err)
	}
	type row struct {
		Name    string `json:"name"`
		Address string `json:"address"`
		Key     string `json:"key"`
		Asked   string `json:"asked"`
	}
	rows := []row{}
	tab := newTable("COORDINATOR", "ADDRESS", "KEY FINGERPRINT", "ASKED")
	for _, j := range reply.Joins {
		rows = append(rows, row{j.Name, j.Address, keyFingerprint(j.PublicKey), day(j.TimeMs)})
		tab.add(j.Name, j.Address, keyFingerprint(j.PublicKey), day(j.TimeMs))
	}
	if c.json() {
		return printJSON(t.out, map[string]any{"joins": rows})
	}
	return tab.print(t.out, "nobody asks to join")
}

// keyFingerprint is what people compare of a public key: `choir coordinator --join` prints the same.
func keyFingerprint(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:])
}

// clusterApprove is `choir cluster approve`.
type clusterApprove struct {
	contextFlag
	rootFlags
	outputFlag
	Name string `arg:"" help:"The coordinator's name."`
	Key  string `help:"Approve only if its key has this fingerprint (or begins with these hex digits), as the joining coordinator prints it." placeholder:"FINGERPRINT"`
}

// Help is what --help explains.
func (clusterApprove) Help() string {
	return `Signs the certificates of a coordinator that waits in choir coordinator --join, and makes it a voter. Compare the key's
fingerprint with the one that coordinator prints: who holds a token could post a request under any name.

Example: choir cluster approve c2 --root-key root.key`
}

// Run approves a request.
func (c *clusterApprove) Run(ctx context.Context, t *terminal) error {
	f, err := c.contextFlag.open(t)
	if err != nil {
		return err
	}
	join, err := f.request(ctx, c.Name)
	if err != nil {
		return err
	}
	print := keyFingerprint(join.PublicKey)
	fmt.Fprintf(t.err, "%s at %s asks to join; fingerprint of its key: %s\n", join.Name, join.Address, print)
	if !strings.HasPrefix(print, strings.ToLower(c.Key)) {
		return &hinted{fmt.Errorf("its key is not %s", c.Key), "do not approve: somebody else may hold the token; revoke it with choir token revoke"}
	}
	root, err := c.openRoot(t, f)
	if err != nil {
		return err
	}
	now := now()
	chain, err := root.Certify(seal.RoleCoordinator, join.Name, ed25519.PublicKey(join.PublicKey), now, coordinatorLife)
	if err != nil {
		return err
	}
	issuer, err := root.CertifyIssuer(join.Name, ed25519.PublicKey(join.IssuerKey), now, coordinatorLife)
	if err != nil {
		return err
	}
	if _, err := f.operators().ApproveCoordinator(ctx, &choirv1.ApproveCoordinatorRequest{Name: join.Name, Chain: chain, Issuer: issuer}); err != nil {
		return said(err)
	}
	if err := c.tell(t, t.err, map[string]any{"name": join.Name, "address": join.Address, "key": print}, "%s is a coordinator now", join.Name); err != nil {
		return err
	}
	_, err = f.status(ctx) // learns its address
	return err
}

// request finds a coordinator's request to join.
func (f *federation) request(ctx context.Context, name string) (*choirv1.JoinStatus, error) {
	reply, err := f.operators().ListJoins(ctx, &choirv1.ListJoinsRequest{})
	if err != nil {
		return nil, said(err)
	}
	var names []string
	for _, j := range reply.Joins {
		if j.Name == name {
			return j, nil
		}
		names = append(names, j.Name)
	}
	if len(names) > 0 {
		return nil, &hinted{fmt.Errorf("no coordinator %s asks to join", name), suggest(name, names)}
	}
	return nil, &hinted{fmt.Errorf("no coordinator %s asks to join", name), "start it with choir coordinator --join TOKEN-FILE --config FILE"}
}

// openRoot opens the root key file and checks that it is this federation's.
func (r *rootFlags) openRoot(t *terminal, f *federation) (*seal.Root, error) {
	root, err := r.open(t)
	if err != nil {
		return nil, err
	}
	if f.earlier(root.Certificate()) {
		return nil, &hinted{fmt.Errorf("%s is the root key %s, which was replaced: the federation's root is %s since", r.RootKey, root.Fingerprint(), f.Root), "name the key that choir cluster rotate-root made with --root-key"}
	}
	if got := root.Fingerprint(); !strings.EqualFold(got, f.Root) {
		return nil, &hinted{fmt.Errorf("%s is the root key %s, the context's federation has %s", r.RootKey, got, f.Root), "name the root key of this federation with --root-key"}
	}
	return root, nil
}

// clusterRemove is `choir cluster remove`.
type clusterRemove struct {
	contextFlag
	outputFlag
	Name string `arg:"" help:"The coordinator's name."`
	Yes  bool   `help:"Do not ask."`
}

// Help is what --help explains.
func (clusterRemove) Help() string {
	return `The coordinator stops being a voter; its certificate is worth nothing from then on. It is refused while data that are
still needed would be left without a majority. One that lost its disk is removed and then joins again with a new token.

Example: choir cluster remove c2 --yes`
}

// Run removes a coordinator.
func (c *clusterRemove) Run(ctx context.Context, t *terminal) error {
	f, err := c.open(t)
	if err != nil {
		return err
	}
	if !c.Yes {
		if ok, err := confirm(t, "remove coordinator "+c.Name+" for good?"); err != nil || !ok {
			return orAbort(err)
		}
	}
	if err := f.askLast(ctx, c.Name); err != nil {
		return err
	}
	if _, err := f.operators().RemoveCoordinator(ctx, &choirv1.RemoveCoordinatorRequest{Name: c.Name}); err != nil {
		return said(err)
	}
	if err := c.tell(t, t.err, map[string]any{"name": c.Name, "state": "removed"}, "%s is no coordinator any more", c.Name); err != nil {
		return err
	}
	_, err = f.status(ctx)
	return err
}

// askLast puts a coordinator behind the others: one that is removed ends, perhaps before it has answered.
func (f *federation) askLast(ctx context.Context, name string) error {
	s, err := f.status(ctx)
	if err != nil {
		return err
	}
	for _, r := range s.Replicas {
		if i := slices.Index(f.Addresses, r.Address); r.Name == name && i >= 0 {
			f.Addresses = append(slices.Delete(slices.Clone(f.Addresses), i, i+1), r.Address)
		}
	}
	return nil
}

func orAbort(err error) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("nothing was done")
}

// clusterNodes is `choir cluster nodes`.
type clusterNodes struct {
	contextFlag
	outputFlag
}

// Help is what --help explains.
func (clusterNodes) Help() string { return "Example: choir cluster nodes -o json" }

// Run lists nodes.
func (c *clusterNodes) Run(ctx context.Context, t *terminal) error {
	f, err := c.open(t)
	if err != nil {
		return err
	}
	reply, err := f.operators().ListNodes(ctx, &choirv1.ListNodesRequest{})
	if err != nil {
		return said(err)
	}
	type row struct {
		Name   string            `json:"name"`
		State  string            `json:"state"`
		Labels map[string]string `json:"labels"`
		Key    string            `json:"key"`
		Spent  uint32            `json:"spent"`
	}
	rows := []row{}
	tab := newTable("NODE", "STATE", "ROUNDS CHARGED", "LABELS")
	for _, n := range reply.Nodes {
		r := row{n.Name, nodeState(n), n.Labels, keyFingerprint(n.Key), n.Spent}
		if r.Labels == nil {
			r.Labels = map[string]string{}
		}
		rows = append(rows, r)
		tab.add(r.Name, r.State, r.Spent, pairs(r.Labels))
	}
	if c.json() {
		return printJSON(t.out, map[string]any{"nodes": rows})
	}
	return tab.print(t.out, "no nodes")
}

func nodeState(n *choirv1.NodeStatus) string {
	switch {
	case n.Revoked:
		return "revoked"
	case n.Present:
		return "present"
	}
	return "away"
}

// clusterRevoke is `choir cluster revoke`.
type clusterRevoke struct {
	contextFlag
	outputFlag
	Node string `arg:"" help:"The node's name."`
	Yes  bool   `help:"Do not ask."`
}

// Help is what --help explains.
func (clusterRevoke) Help() string {
	return `The node's connections are closed, its certificate is refused, its name stays taken.

Example: choir cluster revoke n3 --yes`
}

// Run revokes a node.
func (c *clusterRevoke) Run(ctx context.Context, t *terminal) error {
	f, err := c.open(t)
	if err != nil {
		return err
	}
	if !c.Yes {
		if ok, err := confirm(t, "revoke node "+c.Node+" for good?"); err != nil || !ok {
			return orAbort(err)
		}
	}
	if _, err := f.operators().RevokeNode(ctx, &choirv1.RevokeNodeRequest{Name: c.Node}); err != nil {
		return said(err)
	}
	return c.tell(t, t.err, map[string]any{"name": c.Node, "state": "revoked"}, "node %s is revoked", c.Node)
}

// issued keeps a certificate that was made from this context, for `choir credential list`.
func issued(dir string, der []byte) error {
	sub := filepath.Join(dir, "issued")
	if err := os.MkdirAll(sub, 0o700); err != nil {
		return fmt.Errorf("keep the certificate: %w", err)
	}
	return writePEM(filepath.Join(sub, seal.Fingerprint(der)+".crt"), "CERTIFICATE", der)
}

// markRevoked keeps that a certificate was revoked from this context, for `choir credential list`.
func markRevoked(dir, fingerprint string) error {
	sub := filepath.Join(dir, "issued")
	if err := os.MkdirAll(sub, 0o700); err != nil {
		return fmt.Errorf("keep the revocation: %w", err)
	}
	return seal.WriteFile(filepath.Join(sub, fingerprint+".revoked"), nil)
}

// revokedHere reports whether a certificate was revoked from this context.
func revokedHere(dir, fingerprint string) bool {
	_, err := os.Lstat(filepath.Join(dir, "issued", fingerprint+".revoked"))
	return err == nil
}

// knownHere reports whether a certificate is one of this context or was issued from it.
func knownHere(dir, fingerprint string) bool {
	paths, _ := filepath.Glob(filepath.Join(dir, "*.crt")) // the pattern is well-formed
	for _, path := range append(paths, filepath.Join(dir, "issued", fingerprint+".crt")) {
		if der, err := readPEM(path, "CERTIFICATE"); err == nil && seal.Fingerprint(der[0]) == fingerprint {
			return true
		}
	}
	return false
}

// listIssued reads what issued kept.
func listIssued(dir string) ([]*x509.Certificate, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "issued", "*.crt"))
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for _, path := range paths {
		der, err := readPEM(path, "CERTIFICATE")
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		cert, err := x509.ParseCertificate(der[0])
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		out = append(out, cert)
	}
	return out, nil
}
