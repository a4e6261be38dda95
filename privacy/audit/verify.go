package audit

import (
	"crypto/x509"
	"fmt"
	"time"

	"choir.example/privacy/seal"
)

// Report is the outcome of a verification.
type Report struct {
	OK      bool // every check holds, and the root is the one asked for
	Self    bool // self-consistent only: no fingerprint was given to hold the root against
	Cluster string
	Records int
	Rounds  int // closed rounds
	Checks  []Check
}

// Check is one thing that was checked.
type Check struct {
	Name   string
	OK     bool
	Detail string
}

func (r *Report) add(name string, err error, detail string) bool {
	c := Check{Name: name, OK: err == nil, Detail: detail}
	if err != nil {
		c.Detail = err.Error()
	}
	r.Checks = append(r.Checks, c)
	return err == nil
}

// Verify checks a bundle offline: certificates up to the root, the root against the fingerprint, the tree against the
// signed head, the head's signatures by a majority of the founding coordinators, and that the records tell a lawful
// history. It trusts nobody but the fingerprint; without one it can say only that the bundle agrees with itself, and
// OK stays false. now is the time at which certificates must be valid.
func Verify(file []byte, fingerprint string, now time.Time) Report {
	var r Report
	b, err := DecodeBundle(file)
	if !r.add("format", err, "one canonical encoding, checksum matches") {
		return r
	}
	r.Records = len(b.Records)
	r.Self = fingerprint == ""
	all := r.root(b, fingerprint)
	log := Log{}
	for _, rec := range b.Records {
		log = log.Append(rec)
	}
	all = r.add("tree", checkTree(b, log), fmt.Sprintf("root of %d records is the head's", len(b.Records))) && all
	h, err := replay(b.Records)
	all = r.add("history", err, "each closed round follows from its accepted batches") && all
	if err != nil {
		return r
	}
	r.Cluster, r.Rounds = h.genesis.Cluster, h.closed
	signers, err := checkSignatures(b, h.genesis, now)
	all = r.add("signatures", err, fmt.Sprintf("%d of %d coordinators signed the head", signers, len(h.genesis.Coordinators))) && all
	r.OK = all && !r.Self
	return r
}

func (r *Report) root(b *Bundle, fingerprint string) bool {
	got := seal.Fingerprint(b.Root)
	if fingerprint == "" {
		return r.add("root", nil, "self-consistent only: no fingerprint was given; this bundle's root is "+got)
	}
	if got != fingerprint {
		return r.add("root", fmt.Errorf("the bundle's root is %s, not %s", got, fingerprint), "")
	}
	return r.add("root", nil, got)
}

func checkTree(b *Bundle, log Log) error {
	if b.Head.Size != log.Size() {
		return fmt.Errorf("the head covers %d records, the bundle holds %d", b.Head.Size, log.Size())
	}
	if b.Head.Root != log.Root() {
		return fmt.Errorf("the records do not give the head's root")
	}
	return nil
}

// checkSignatures checks the certificates of those who signed and that they are a majority of the founders. The
// bundle carries exactly the chains of the signers, and these are the ones in the genesis record.
func checkSignatures(b *Bundle, g *Genesis, now time.Time) (int, error) {
	root, err := x509.ParseCertificate(b.Root)
	if err != nil {
		return 0, fmt.Errorf("root certificate: %w", err)
	}
	if err := root.CheckSignatureFrom(root); err != nil {
		return 0, fmt.Errorf("root certificate: %w", err)
	}
	if string(g.Root) != string(b.Root) || g.Cluster != b.Head.Cluster || root.Subject.CommonName != g.Cluster {
		return 0, fmt.Errorf("genesis, head and root certificate do not name one federation")
	}
	if len(b.Chains) != len(b.Head.Signatures) {
		return 0, fmt.Errorf("%d chains for %d signatures", len(b.Chains), len(b.Head.Signatures))
	}
	for i, sig := range b.Head.Signatures {
		if i > 0 && b.Head.Signatures[i-1].Signer >= sig.Signer {
			return i, fmt.Errorf("signers are not in order, or one signed twice")
		}
		if err := checkSigner(b, g, i, root, now); err != nil {
			return i, fmt.Errorf("signature of %s: %w", sig.Signer, err)
		}
	}
	if n := len(b.Head.Signatures); n < len(g.Coordinators)/2+1 {
		return n, fmt.Errorf("%d of %d coordinators signed, a majority is %d", n, len(g.Coordinators), len(g.Coordinators)/2+1)
	}
	return len(b.Head.Signatures), nil
}

func checkSigner(b *Bundle, g *Genesis, i int, root *x509.Certificate, now time.Time) error {
	sig, chain := b.Head.Signatures[i], b.Chains[i]
	var founder *Coordinator
	for k := range g.Coordinators {
		if g.Coordinators[k].Name == sig.Signer {
			founder = &g.Coordinators[k]
		}
	}
	if founder == nil || chain.Name != sig.Signer || fmt.Sprint(founder.Chain) != fmt.Sprint(chain.Certificates) {
		return fmt.Errorf("it is not by a coordinator of the genesis record")
	}
	id, err := seal.VerifyChain(chain.Certificates, root, now)
	if err != nil {
		return err
	}
	if id.Role != seal.RoleCoordinator || id.Name != sig.Signer {
		return fmt.Errorf("the certificate is of %s %s", id.Role, id.Name)
	}
	if !seal.Verify(id.Key, DomainHead, b.Head.Message(), sig.Signature) {
		return seal.ErrSignature
	}
	return nil
}
