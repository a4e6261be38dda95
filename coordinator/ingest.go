package coordinator

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"choir.example/coordinator/state"
	"choir.example/fedavg"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// verified is an update that passed every check at the door.
type verified struct {
	payload  *fedavg.Payload
	digest   state.Digest
	envelope []byte // as received, kept until the batch is on a quorum
	sealedTo func(recipients []string) bool
	dropped  chan struct{} // closed when the batch could not be committed here: the node sends again
}

// refusedUpdate is an update turned away, with the reason that is recorded and the text that the node reads.
type refusedUpdate struct {
	reason        string // one of the audit package's incident reasons
	err           error
	first, second []byte // digests of two updates that conflict
}

func (e *refusedUpdate) Error() string { return e.err.Error() }
func (e *refusedUpdate) Unwrap() error { return e.err }

func refuse(reason, format string, args ...any) error {
	return &refusedUpdate{reason: reason, err: fmt.Errorf(format, args...)}
}

// openEnvelope decrypts an envelope and verifies both signatures of the node named inside it.
func (c *Coordinator) openEnvelope(s *state.State, envelope []byte) (*verified, error) {
	signed, err := openBy(c.epochs, func(k *seal.EpochKey) (*seal.SignedUpdate, error) { return seal.DecryptUpdate(envelope, k) })
	if err != nil {
		return nil, refuse(audit.ReasonDecrypt, "open envelope: %w", err)
	}
	p, err := fedavg.DecodePayload(signed.Payload)
	if err != nil {
		return nil, refuse(audit.ReasonEncoding, "%w", err)
	}
	node, ok := s.Nodes[p.Node]
	if !ok {
		return nil, refuse(audit.ReasonSignature, "the update names node %q, which is not enrolled", p.Node)
	}
	if err := signed.Verify(ed25519.PublicKey(node.Key)); err != nil {
		return nil, refuse(audit.ReasonSignature, "verify update of node %s: %w", p.Node, err)
	}
	return &verified{payload: p, digest: signed.Digest, envelope: envelope, sealedTo: signed.SealedTo, dropped: make(chan struct{})}, nil
}

// verify checks a received envelope against the round it claims to answer.
func (c *Coordinator) verify(s *state.State, j *state.Job, r *state.Round, node string, h *choirv1.UploadHeader, envelope []byte) (*verified, error) {
	u, err := c.openEnvelope(s, envelope)
	if err != nil {
		return nil, err
	}
	p := u.payload
	switch {
	case p.Node != node:
		return nil, refuse(audit.ReasonSignature, "node %s sent an update of node %s", node, p.Node)
	case !bytes.Equal(u.digest[:], h.Update):
		return nil, refuse(audit.ReasonEncoding, "the update's digest is not the announced one")
	case p.Cluster != s.Cluster:
		return nil, refuse(audit.ReasonReplay, "the update is of federation %q, not %q", p.Cluster, s.Cluster)
	case p.Job != j.Name || p.Round != r.Number || p.Attempt != r.Attempt:
		return nil, refuse(audit.ReasonReplay, "the update answers round %d attempt %d of job %q, not round %d attempt %d of job %q",
			p.Round, p.Attempt, p.Job, r.Number, r.Attempt, j.Name)
	case p.Plan != r.Plan:
		return nil, refuse(audit.ReasonReplay, "the update answers another plan of the round")
	case p.Model != r.Model:
		return nil, refuse(audit.ReasonReplay, "the update started from another model than the round's")
	}
	shape, err := c.shape(j, r)
	if err != nil {
		return nil, err
	}
	if err := p.Check(shape); err != nil {
		return nil, refuse(audit.ReasonShape, "%w", err)
	}
	return u, nil
}

// spool keeps received envelopes on disk, as received, until their batch is on a quorum. A spooled update has no
// receipt yet: what a crash leaves here is swept at the next start, and the nodes send again.
type spool struct {
	*gate
	dir string
}

func openSpool(dir string, g *gate) (*spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make spool: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return nil, fmt.Errorf("sweep spool: %w", err)
		}
	}
	return &spool{g, dir}, nil
}

func (s *spool) path(d state.Digest) string { return filepath.Join(s.dir, d.String()) }

// put writes the envelope and syncs it.
func (s *spool) put(d state.Digest, envelope []byte) (err error) {
	if err := s.check(); err != nil {
		return err
	}
	f, err := os.OpenFile(s.path(d), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("spool update: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(envelope); err != nil {
		return fmt.Errorf("spool update: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("spool update: %w", err)
	}
	return nil
}

// drop forgets an update whose batch is committed or refused.
func (s *spool) drop(d state.Digest) {
	if s.check() == nil {
		_ = os.Remove(s.path(d)) // what stays is swept at the next start
	}
}
