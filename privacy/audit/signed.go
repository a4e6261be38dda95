package audit

import (
	"fmt"

	"choir.example/internal/canon"
)

// Domains of signatures over the encodings in this package.
const (
	DomainHead    = "choir/head/v1"
	DomainReceipt = "choir/receipt/v1"
	DomainRefusal = "choir/refusal/v1"
)

// Head is the log's size and root with the signatures of coordinators over both.
type Head struct {
	Cluster    string
	Size       uint64
	Root       [32]byte
	Signatures []Signature // in order of signers
}

// Signature is one coordinator's.
type Signature struct {
	Signer    string
	Signature []byte
}

// Message is what is signed.
func (h Head) Message() []byte {
	var w canon.Writer
	w.String(h.Cluster)
	w.Uint(h.Size)
	w.Fixed(h.Root[:])
	return w.Buf
}

func (h *Head) visit(v visitor) {
	v.str(&h.Cluster)
	v.uint(&h.Size)
	v.digest(&h.Root)
	list(v, &h.Signatures, func(s *Signature) {
		v.str(&s.Signer)
		v.bytes(&s.Signature)
	})
}

// Encode is the head's canonical encoding.
func (h Head) Encode() []byte { return encode(&h) }

// DecodeHead reads what Encode wrote.
func DecodeHead(b []byte) (Head, error) {
	var h Head
	err := decode("head", b, &h)
	return h, err
}

// Receipt is a coordinator's word that an update is counted: Index is the raft index of the acceptance.
type Receipt struct {
	Cluster string
	Job     string
	Round   uint64
	Attempt uint32
	Node    string
	Update  [32]byte
	Batch   [32]byte
	Index   uint64
}

func (r *Receipt) visit(v visitor) {
	v.str(&r.Cluster)
	(&attemptFields{&r.Job, &r.Round, &r.Attempt}).visit(v)
	v.str(&r.Node)
	v.digest(&r.Update)
	v.digest(&r.Batch)
	v.uint(&r.Index)
}

// Encode is the receipt's canonical encoding: what is signed.
func (r Receipt) Encode() []byte { return encode(&r) }

// DecodeReceipt reads what Encode wrote.
func DecodeReceipt(b []byte) (Receipt, error) {
	var r Receipt
	err := decode("receipt", b, &r)
	return r, err
}

// Refusal is a coordinator's word that an update is not and will not be counted, and since which raft index.
type Refusal struct {
	Cluster string
	Job     string
	Round   uint64
	Attempt uint32
	Node    string
	Update  [32]byte
	Index   uint64
	Reason  string
}

func (r *Refusal) visit(v visitor) {
	v.str(&r.Cluster)
	(&attemptFields{&r.Job, &r.Round, &r.Attempt}).visit(v)
	v.str(&r.Node)
	v.digest(&r.Update)
	v.uint(&r.Index)
	v.str(&r.Reason)
}

// Encode is the refusal's canonical encoding: what is signed.
func (r Refusal) Encode() []byte { return encode(&r) }

// DecodeRefusal reads what Encode wrote.
func DecodeRefusal(b []byte) (Refusal, error) {
	var r Refusal
	err := decode("refusal", b, &r)
	return r, err
}

type visitable interface{ visit(visitor) }

func encode(x visitable) []byte {
	var w canon.Writer
	w.Uint(recordVersion)
	x.visit(&writer{&w})
	return w.Buf
}

func decode(what string, b []byte, x visitable) error {
	r := canon.NewReader(b)
	if v := r.Uint(); r.Err() == nil && v != recordVersion {
		return fmt.Errorf("decode %s: version %d is not known", what, v)
	}
	x.visit(&reader{r})
	if err := r.Close(); err != nil {
		return fmt.Errorf("decode %s: %w", what, err)
	}
	return nil
}
