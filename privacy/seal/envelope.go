package seal

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"choir.example/internal/canon"
)

// ErrRecipient is returned when an envelope is not for the key that tries to open it, or was sealed to others than its
// signature says.
var ErrRecipient = errors.New("envelope is not for this recipient")

const (
	domainUpdate   = "choir/update/v1"
	domainEnvelope = "choir/envelope/v1"
)

// UpdateDigest is an update's identity: SHA-256 over a domain string and the signed payload. Recipients are not in it,
// so an update can be sealed anew when the voters change.
func UpdateDigest(payload []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte(domainUpdate))
	h.Write(payload)
	return [32]byte(h.Sum(nil))
}

// envelopeMessage binds an update to the recipients it is sealed to, sorted.
func envelopeMessage(digest [32]byte, recipients []string) []byte {
	var w canon.Writer
	w.Fixed(digest[:])
	w.Uint(uint64(len(recipients)))
	for _, r := range recipients {
		w.String(r)
	}
	return w.Buf
}

// envelopeVersion is the first number inside an envelope.
const envelopeVersion = 1

// SealUpdate signs a payload, signs its digest again together with the recipients, and encrypts all of it to them, each
// once. The digest is UpdateDigest of the payload. payload is not kept.
func SealUpdate(payload []byte, key ed25519.PrivateKey, recipients []string) (envelope []byte, digest [32]byte, err error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, digest, fmt.Errorf("seal update: signing key of %d bytes", len(key))
	}
	recipients = slices.Compact(slices.Sorted(slices.Values(recipients)))
	digest = UpdateDigest(payload)
	head := envelopeHead(recipients, Sign(key, domainUpdate, digest[:]),
		Sign(key, domainEnvelope, envelopeMessage(digest, recipients)), len(payload))
	envelope, err = sealTo(recipients, head, payload)
	return envelope, digest, err
}

// envelopeHead is what stands before the payload inside an envelope.
func envelopeHead(recipients []string, signature, envelope []byte, payload int) []byte {
	var w canon.Writer
	w.Buf = make([]byte, 0, 256+128*len(recipients))
	w.Uint(envelopeVersion)
	w.Uint(uint64(len(recipients)))
	for _, r := range recipients {
		w.String(r)
	}
	w.Fixed(signature)
	w.Fixed(envelope)
	w.Uint(uint64(payload))
	return w.Buf
}

// SignedUpdate is an opened envelope whose signatures are not checked yet: who signed stands in the payload.
type SignedUpdate struct {
	Payload    []byte   // owned by the SignedUpdate's holder
	Digest     [32]byte // UpdateDigest of Payload
	recipients []string // ascending, each once
	signature  []byte   // over the digest
	envelope   []byte   // over the digest and the recipients
	opener     string   // recipient whose key opened it
}

// DecryptUpdate opens an envelope with an epoch key. Errors wrap ErrRecipient when it is sealed to others, ErrSealed
// when it was changed.
func DecryptUpdate(envelope []byte, key *EpochKey) (*SignedUpdate, error) {
	plain, err := OpenFrom(envelope, key)
	if err != nil {
		return nil, err
	}
	u, err := decodeEnvelope(plain)
	if err != nil {
		return nil, fmt.Errorf("open envelope: %w", err)
	}
	u.opener = key.Recipient()
	return u, nil
}

// decodeEnvelope reads the inside of an envelope, all but who opened it; the result aliases it.
func decodeEnvelope(plain []byte) (*SignedUpdate, error) {
	r := canon.NewReader(plain)
	if v := r.Uint(); r.Err() == nil && v != envelopeVersion {
		return nil, fmt.Errorf("version %d is not known", v)
	}
	u := &SignedUpdate{}
	for n := r.Len(1); len(u.recipients) < n && r.Err() == nil; {
		u.recipients = append(u.recipients, r.String())
		if i := len(u.recipients) - 1; i > 0 && u.recipients[i-1] >= u.recipients[i] {
			r.Fail("recipients are not in ascending order")
		}
	}
	u.signature, u.envelope = r.Fixed(ed25519.SignatureSize), r.Fixed(ed25519.SignatureSize)
	u.Payload = r.Bytes()
	if err := r.Close(); err != nil {
		return nil, err
	}
	u.Digest = UpdateDigest(u.Payload)
	return u, nil
}

// SealedTo reports whether the node sealed the update to all of these recipients.
func (u *SignedUpdate) SealedTo(recipients []string) bool {
	return !slices.ContainsFunc(recipients, func(r string) bool { return !slices.Contains(u.recipients, r) })
}

// Verify checks both signatures against the enrolled key of the node that the payload names, and that whoever opened
// the envelope is among the signed recipients.
func (u *SignedUpdate) Verify(key ed25519.PublicKey) error {
	if !Verify(key, domainUpdate, u.Digest[:], u.signature) {
		return fmt.Errorf("update: %w", ErrSignature)
	}
	if !Verify(key, domainEnvelope, envelopeMessage(u.Digest, u.recipients), u.envelope) {
		return fmt.Errorf("envelope: %w", ErrSignature)
	}
	if !slices.Contains(u.recipients, u.opener) {
		return fmt.Errorf("the node did not seal it to %s: %w", u.opener, ErrRecipient)
	}
	return nil
}
