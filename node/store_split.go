package node

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Shares says how many of a hundred rows of an import go to each part.
type Shares struct {
	Train      int `json:"train"`      // in [0, 100]; the three add up to 100
	Validation int `json:"validation"` // the same
	Held       int `json:"held"`       // the same
}

// DefaultShares are those of a node in the field: what it learns from and what it measures models on.
func DefaultShares() Shares { return Shares{Train: 80, Validation: 20} }

// ParseShares reads shares such as "70/20/10".
func ParseShares(text string) (s Shares, err error) {
	var rest string
	n, _ := fmt.Sscanf(text, "%d/%d/%d%s", &s.Train, &s.Validation, &s.Held, &rest)
	if n != 3 {
		return Shares{}, fmt.Errorf("shares %q, want train/validation/held such as 80/20/0", text)
	}
	return s, s.Validate()
}

// Validate says what is wrong with shares.
func (s Shares) Validate() error {
	if s.Train < 0 || s.Validation < 0 || s.Held < 0 || s.Train > 100 || s.Validation > 100 || s.Held > 100 ||
		s.Train+s.Validation+s.Held != 100 {
		return fmt.Errorf("shares %d/%d/%d, want three that are 100 together", s.Train, s.Validation, s.Held)
	}
	return nil
}

// all gives every row to one part.
func (p Part) all() (Shares, error) {
	switch p {
	case Train:
		return Shares{Train: 100}, nil
	case Validation:
		return Shares{Validation: 100}, nil
	case Held:
		return Shares{Held: 100}, nil
	}
	return Shares{}, p.check()
}

// check refuses a part that does not exist.
func (p Part) check() error {
	switch p {
	case Train, Validation, Held:
		return nil
	}
	return fmt.Errorf("part %q, want train, validation or held", p)
}

// part is where the n-th row of a file goes, from one. It depends on nothing but the file's digest, the number and the
// shares, so the same file is divided in the same way everywhere and every time; and whether a row is learnt from does
// not depend on what stands in it.
func (s Shares) part(digest string, n int) Part {
	h := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("choir/split/v1|"+digest+"|"), uint64(n)))
	switch x := int(binary.BigEndian.Uint64(h[:]) % 100); {
	case x < s.Train:
		return Train
	case x < s.Train+s.Validation:
		return Validation
	}
	return Held
}
