package audit

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// Proof shows that a record is a leaf of the log that a majority of the coordinators signed: with a roster it can be
// checked by somebody who has no log.
type Proof struct {
	Record []byte
	Leaf   uint64     // the record's place in the log, from 0
	Path   [][32]byte // the audit path of RFC 6962, section 2.1.1, from the leaf to the root
	Head   Head
}

// Prove proves the record at a place of the log under a head of this log, which may cover less than all of it.
func (l Log) Prove(leaf uint64, h Head) (Proof, error) {
	if h.Size > l.Size() || leaf >= h.Size {
		return Proof{}, fmt.Errorf("prove record %d under a head of %d records in a log of %d", leaf, h.Size, l.Size())
	}
	path, err := tlog.ProveRecord(int64(h.Size), int64(leaf), l)
	if err != nil {
		return Proof{}, fmt.Errorf("prove record %d: %w", leaf, err)
	}
	p := Proof{Record: l.Record(leaf), Leaf: leaf, Head: h}
	for _, hash := range path {
		p.Path = append(p.Path, hash)
	}
	return p, nil
}

func (p *Proof) visit(v visitor) {
	v.bytes(&p.Record)
	v.uint(&p.Leaf)
	list(v, &p.Path, v.digest)
	p.Head.visit(v)
}

// Encode is the proof's canonical encoding.
func (p Proof) Encode() []byte { return encode(&p) }

// DecodeProof reads what Encode wrote. Nothing is verified.
func DecodeProof(b []byte) (Proof, error) {
	var p Proof
	err := decode("proof", b, &p)
	return p, err
}

// Verify returns the record, if the head over it is signed by a majority of the coordinators in a verified roster, each
// with a certificate of the root that is valid at the time now.
func (p Proof) Verify(r Roster, root *x509.Certificate, now time.Time) (Record, error) {
	if err := r.checkHead(p.Head, root, now); err != nil {
		return nil, err
	}
	var path tlog.RecordProof
	for _, hash := range p.Path {
		path = append(path, hash)
	}
	// Sizes beyond int64 turn negative, which CheckRecord refuses.
	err := tlog.CheckRecord(path, int64(p.Head.Size), p.Head.Root, int64(p.Leaf), tlog.RecordHash(p.Record))
	if err != nil {
		return nil, fmt.Errorf("record %d is not in the log of %d records: %w", p.Leaf, p.Head.Size, err)
	}
	return Decode(p.Record)
}

// checkHead checks that a majority of the coordinators in the roster signed a head. Signatures of others, such as of
// coordinators that joined since, and those under certificates that have ended do not count.
func (r Roster) checkHead(h Head, root *x509.Certificate, now time.Time) error {
	switch {
	case h.Cluster != r.Cluster:
		return fmt.Errorf("head of federation %q, not %q", h.Cluster, r.Cluster)
	case !ascending(h.Signatures, func(s Signature) string { return s.Signer }):
		return errors.New("head: signers are not in order, or one signed twice")
	}
	message := h.Message()
	var reasons []error
	for _, sig := range h.Signatures {
		if err := r.checkSigner(sig, DomainHead, message, root, now); err != nil {
			reasons = append(reasons, fmt.Errorf("signature of %s: %w", sig.Signer, err))
		}
	}
	if signed, majority := len(h.Signatures)-len(reasons), len(r.Coordinators)/2+1; signed < majority {
		reasons = append([]error{fmt.Errorf("head of %d records: %d of %d coordinators signed, a majority is %d",
			h.Size, signed, len(r.Coordinators), majority)}, reasons...)
		return errors.Join(reasons...)
	}
	return nil
}
