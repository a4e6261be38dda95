package coordinator

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"log/slog"
	"strings"
	"testing"
	"time"

	"choir.example/privacy/seal"
)

// Within 60 days of their end the certificates and the root are warned of, with the cure, and not before.
func TestExpiryIsWarnedOf(t *testing.T) {
	root, err := seal.NewRoot("test", time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &testFederation{t: t, root: root, dir: t.TempDir()}
	credential := f.certify(seal.RoleCoordinator, "c1") // for an hour
	issuer, err := root.CertifyIssuer("c1", credential.Key.Public().(ed25519.PublicKey), time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	own, err := newPapers(root.Certificate(), credential, &seal.Issuer{Certificate: issuer, Key: credential.Key}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		now  time.Time
		want []string
	}{
		{"long before", own.expires.Add(-61 * 24 * time.Hour), nil},
		{"soon", own.expires.Add(-59 * 24 * time.Hour), []string{"level=WARN", "certificates end soon", "choir cluster renew c1 --root-key"}},
		{"the root, too", root.Certificate().NotAfter.Add(-59 * 24 * time.Hour), []string{"the root ends soon", "choir cluster rotate-root"}},
	} {
		var log bytes.Buffer
		m := &Coordinator{cfg: Config{Name: "c1"}, deps: Deps{Log: slog.New(slog.NewTextHandler(&log, nil)), Now: func() time.Time { return c.now }}}
		m.own.Store(own)
		m.warnOnce()
		if c.want == nil && log.Len() > 0 {
			t.Errorf("%s: %s", c.name, log.String())
		}
		for _, text := range c.want {
			if !strings.Contains(log.String(), text) {
				t.Errorf("%s: %q is not in %s", c.name, text, log.String())
			}
		}
	}
}
