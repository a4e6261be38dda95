package audit

import (
	"bytes"
	"crypto/sha256"
	"fmt"
)

// Bundle is everything that a stranger needs to check a federation's history, in one file.
type Bundle struct {
	Root    []byte  // root certificate, DER
	Chains  []Chain // of the coordinators that signed the head
	Records [][]byte
	Head    Head
}

// Chain is a coordinator's certificate chain, leaf first.
type Chain struct {
	Name         string
	Certificates [][]byte
}

// bundleMagic starts a bundle file.
const bundleMagic = "choir-bundle-1\n"

func (b *Bundle) visit(v visitor) {
	v.bytes(&b.Root)
	list(v, &b.Chains, func(c *Chain) {
		v.str(&c.Name)
		list(v, &c.Certificates, v.bytes)
	})
	list(v, &b.Records, v.bytes)
	b.Head.visit(v)
}

// Encode is the bundle's file: a first line, the canonical encoding, and its SHA-256.
func (b Bundle) Encode() []byte { return sealBundle(encode(&b)) }

// sealBundle puts the first line and the checksum around an encoding.
func sealBundle(encoding []byte) []byte {
	out := append([]byte(bundleMagic), encoding...)
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}

// DecodeBundle reads what Encode wrote, and nothing else.
func DecodeBundle(file []byte) (*Bundle, error) {
	if len(file) < len(bundleMagic)+sha256.Size || !bytes.HasPrefix(file, []byte(bundleMagic)) {
		return nil, fmt.Errorf("decode bundle: it is not a bundle, or is cut")
	}
	body, check := file[:len(file)-sha256.Size], file[len(file)-sha256.Size:]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], check) {
		return nil, fmt.Errorf("decode bundle: its checksum does not match: it is damaged or cut")
	}
	b := &Bundle{}
	if err := decode("bundle", body[len(bundleMagic):], b); err != nil {
		return nil, err
	}
	return b, nil
}

// Decoded decodes all records of a bundle.
func (b *Bundle) Decoded() ([]Record, error) {
	out := make([]Record, len(b.Records))
	for i, raw := range b.Records {
		r, err := Decode(raw)
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", i, err)
		}
		out[i] = r
	}
	return out, nil
}
