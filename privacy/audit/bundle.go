package audit

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
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

// errBundle is the error class of a file that is no bundle, or not a whole one.
var errBundle = errors.New("decode bundle")

// scan checks a bundle file's first line and checksum, in little memory, and returns to its start. An error that is not
// errBundle is that of reading.
func scan(file io.ReadSeeker) error {
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	first, sum, check := make([]byte, len(bundleMagic)), sha256.New(), make([]byte, sha256.Size)
	if size >= int64(len(first)+len(check)) {
		if _, err := io.ReadFull(file, first); err != nil {
			return err
		}
	}
	if string(first) != bundleMagic {
		return fmt.Errorf("%w: it is not a bundle, or is cut", errBundle)
	}
	sum.Write(first)
	if _, err := io.CopyN(sum, file, size-int64(len(first)+len(check))); err != nil {
		return err
	}
	if _, err := io.ReadFull(file, check); err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), check) {
		return fmt.Errorf("%w: its checksum does not match: it is damaged or cut", errBundle)
	}
	_, err = file.Seek(0, io.SeekStart)
	return err
}

// DecodeBundle reads what Encode wrote, and nothing else.
func DecodeBundle(file []byte) (*Bundle, error) {
	if err := scan(bytes.NewReader(file)); err != nil {
		return nil, err
	}
	b := &Bundle{}
	if err := decode("bundle", file[len(bundleMagic):len(file)-sha256.Size], b); err != nil {
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
