package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"choir.example/privacy/seal"
)

// Report is the outcome of a verification. Its texts hold printable characters only, whatever the bundle holds.
type Report struct {
	OK       bool // every check holds, and the root is the one asked for
	Self     bool // every check holds, but self-consistent only: no fingerprint was given to hold the root against
	Cluster  string
	Records  int
	Rounds   int // closed rounds
	Checks   []Check
	Roots    []RootReport // the federation's, oldest first, as the records say
	Officers []string     // SHA-256 of the officers' public keys that count as of the head
}

// Check is one thing that was checked.
type Check struct {
	Name   string
	OK     bool
	Detail string
}

// add adds a check: the detail if it holds, the error if not.
func (r *Report) add(name string, err error, detail string) {
	if err != nil {
		detail = err.Error()
	}
	r.Checks = append(r.Checks, Check{Name: name, OK: err == nil, Detail: printable(detail)})
}

// printable replaces what could move a terminal's cursor: names in a bundle are written by whoever made it.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return unicode.ReplacementChar
	}, s)
}

// Verify checks a bundle offline: certificates up to the root, the root against the fingerprint, the tree against the
// signed head, the head's signatures by a majority of the coordinators as of the head, and that the records tell a lawful
// history. It trusts nobody but the fingerprint; without one it can say only that the bundle agrees with itself, and
// OK stays false. All checks are made, but for a file that is no bundle.
//
// The fingerprint may be that of the founding root or of any that came after it: the records of rotations lead from one to
// the next, each certified by the one before, and the head is signed under the last.
//
// Certificates of coordinators must be valid at the time in the record that names them, those of the signers at the time now
// as well: a head bears no time that an old signature could be judged by.
func Verify(file []byte, fingerprint string, now time.Time) Report {
	var r Report
	b, err := DecodeBundle(file)
	r.add("format", err, "one canonical encoding, checksum matches")
	if err != nil {
		return r
	}
	r.Records = len(b.Records)
	h, err := replay(b.Records)
	r.Rounds, r.Roots, r.Officers = h.closed, h.roots, h.countedOfficers()
	r.root(b, h, fingerprint)
	r.add("tree", checkTree(b), fmt.Sprintf("root of %d records is the head's", len(b.Records)))
	r.add("history", err, "each closed round follows from its accepted batches")
	r.signatures(b, h, now)
	holds := !slices.ContainsFunc(r.Checks, func(c Check) bool { return !c.OK })
	r.OK, r.Self = holds && fingerprint != "", holds && fingerprint == ""
	return r
}

// VerifyFile is Verify for a file. One that is no bundle, or a damaged one, is found in little memory, whatever its size.
// The error is that of reading.
func VerifyFile(file io.ReadSeeker, fingerprint string, now time.Time) (Report, error) {
	var r Report
	err := scan(file)
	if errors.Is(err, errBundle) {
		r.add("format", err, "")
		return r, nil
	}
	if err != nil {
		return r, err
	}
	all, err := io.ReadAll(file)
	if err != nil {
		return r, err
	}
	return Verify(all, fingerprint, now), nil
}

// root says which of the federation's roots the fingerprint is. A retired one still leads to the present one, but so does
// whatever a thief of its key makes up.
func (r *Report) root(b *Bundle, h *history, fingerprint string) {
	founding := seal.Fingerprint(b.Root)
	roots := h.roots
	if len(roots) == 0 || roots[0].Fingerprint != founding {
		roots = []RootReport{{Fingerprint: founding}} // the signatures' check says what is wrong
	}
	i := slices.IndexFunc(roots, func(x RootReport) bool { return x.Fingerprint == fingerprint })
	switch {
	case fingerprint == "":
		r.add("root", nil, "self-consistent only: no fingerprint was given; this bundle's root is "+roots[len(roots)-1].Fingerprint)
	case i < 0:
		r.add("root", fmt.Errorf("the bundle's root is %s, not %s", roots[len(roots)-1].Fingerprint, fingerprint), "")
	case len(roots) == 1:
		r.add("root", nil, fingerprint)
	default:
		r.add("root", nil, fingerprint+whichRoot(roots, i))
	}
}

func whichRoot(roots []RootReport, i int) string {
	last := len(roots) - 1
	rotations := fmt.Sprintf("%d rotations", last)
	if last == 1 {
		rotations = "one rotation"
	}
	switch {
	case i == last:
		return fmt.Sprintf(": the present root, after %s from the founding root %s", rotations, roots[0].Fingerprint)
	case roots[i].Retired:
		return fmt.Sprintf(": an earlier root that was RETIRED; whoever stole its key can make such a bundle up; hold it against the present root %s, got from somebody you trust", roots[last].Fingerprint)
	case i == 0:
		return fmt.Sprintf(": the founding root; %s lead to the present root %s", rotations, roots[last].Fingerprint)
	}
	return fmt.Sprintf(": an earlier root; the recorded rotations lead to the present root %s", roots[last].Fingerprint)
}

func checkTree(b *Bundle) error {
	if b.Head.Size != uint64(len(b.Records)) {
		return fmt.Errorf("the head covers %d records, the bundle holds %d", b.Head.Size, len(b.Records))
	}
	if b.Head.Root != NewLog(b.Records).Root() {
		return errors.New("the records do not give the head's root")
	}
	return nil
}

func (r *Report) signatures(b *Bundle, h *history, now time.Time) {
	if h.genesis == nil {
		r.add("signatures", errors.New("there is no lawful genesis record to hold them against"), "")
		return
	}
	r.Cluster = printable(h.genesis.Cluster)
	r.add("signatures", checkSignatures(b, h, now), fmt.Sprintf("%d of %d coordinators signed the head", len(b.Head.Signatures), len(h.voters)))
}

// checkSignatures checks that those who signed are a majority of the coordinators as of the head. The bundle carries
// exactly the chains of the signers, as they stand in the records.
func checkSignatures(b *Bundle, h *history, now time.Time) error {
	g, sigs := h.genesis, b.Head.Signatures
	if !bytes.Equal(g.Root, b.Root) || g.Cluster != b.Head.Cluster {
		return errors.New("genesis, head and root certificate do not name one federation")
	}
	if len(b.Chains) != len(sigs) {
		return fmt.Errorf("%d chains for %d signatures", len(b.Chains), len(sigs))
	}
	if !ascending(sigs, func(s Signature) string { return s.Signer }) {
		return errors.New("signers are not in order, or one signed twice")
	}
	for i, sig := range sigs {
		if err := checkSigner(b, h, sig, b.Chains[i], now); err != nil {
			return fmt.Errorf("signature of %s: %w", sig.Signer, err)
		}
	}
	if majority := len(h.voters)/2 + 1; len(sigs) < majority {
		return fmt.Errorf("%d of %d coordinators signed, a majority is %d", len(sigs), len(h.voters), majority)
	}
	return nil
}

func checkSigner(b *Bundle, h *history, sig Signature, chain Chain, now time.Time) error {
	own, ok := h.voters[sig.Signer]
	if !ok {
		return errors.New("it is not by a coordinator as of the head")
	}
	if chain.Name != sig.Signer || !slices.EqualFunc(chain.Certificates, own, bytes.Equal) {
		return errors.New("its certificate is not that in the records")
	}
	if _, err := seal.VerifyChain(chain.Certificates, h.root, now); err != nil {
		return err
	}
	if !seal.Verify(h.keys[sig.Signer], DomainHead, b.Head.Message(), sig.Signature) {
		return seal.ErrSignature
	}
	return nil
}
