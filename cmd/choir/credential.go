package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// credentialCommand is `choir credential`.
type credentialCommand struct {
	Create  credentialCreate  `cmd:"" help:"Certify an operator, officer or auditor with the root key."`
	Request credentialRequest `cmd:"" help:"Make your own key, and a request that the holder of the root key certifies."`
	Install credentialInstall `cmd:"" help:"Put the certificate for your request into your context."`
	List    credentialList    `cmd:"" help:"List the credential of this context and those issued from it."`
	Revoke  credentialRevoke  `cmd:"" help:"Make a person's certificate useless."`
}

// credentialCreate is `choir credential create`.
type credentialCreate struct {
	contextFlag
	rootFlags
	outputFlag
	Role    string        `arg:"" help:"${enum}." enum:"operator,officer,auditor"`
	Name    string        `help:"The person's name. Default: that of the request, or of the credential renewed." placeholder:"NAME"`
	Out     string        `help:"Directory of the new context; it must not hold a credential yet." placeholder:"DIR" type:"path"`
	Request string        `help:"Certify the key in this request instead of making one; the certificate goes to --out as a file." placeholder:"FILE" type:"path"`
	Renew   bool          `help:"Certify the key of this context's credential anew."`
	Replace string        `name:"replaces" help:"An officer's key, by its fingerprint, that was lost and counts no more." placeholder:"FINGERPRINT"`
	Life    time.Duration `help:"How long the certificate is valid." default:"8760h"`
}

// Help is what --help explains.
func (credentialCreate) Help() string {
	return `Only the root certifies people, so this needs the root key file, not a coordinator. The new context is a directory that the
person keeps; nobody else should have its key. An officer makes the own key (choir credential request) and sends the request.
A credential that was lost is replaced the same way; revoke the lost one. --renew extends the one in this context.

Example: choir credential create operator --name ada --root-key root.key --out ada-context`
}

// Run certifies a person.
func (c *credentialCreate) Run(ctx context.Context, t *terminal) error {
	if c.Life < time.Minute || c.Life > 5*personLife {
		return &usageError{fmt.Sprintf("--life is %v, want 1m to 43800h", c.Life), ""}
	}
	dir, err := c.contextFlag.dir()
	if err != nil {
		return err
	}
	f, err := openContext(dir)
	if err != nil {
		return err
	}
	switch {
	case c.Replace != "" && (c.Role != string(seal.RoleOfficer) || c.Request == ""):
		return &usageError{"--replaces goes with an officer's --request", "only officers' keys are known to the federation by themselves"}
	case c.Renew && (c.Request != "" || c.Out != ""):
		return &usageError{"--renew goes with neither --request nor --out", "it renews the credential of this context"}
	case c.Renew:
		return c.renew(t, f)
	case c.Out == "":
		return &usageError{"--out is missing", "name the directory of the new context, or with --request the file of the certificate"}
	case c.Request != "":
		return c.certifyRequest(ctx, t, f)
	case c.Role == string(seal.RoleOfficer):
		return &usageError{"an officer makes the own key", "the officer runs choir credential request officer --name NAME --out FILE; give that file here with --request"}
	case c.Name == "":
		return &usageError{"--name is missing", "say whose credential it is"}
	}
	return c.fresh(t, f)
}

// fresh makes a key and a context for it.
func (c *credentialCreate) fresh(t *terminal, f *federation) error {
	if entries, err := os.ReadDir(c.Out); err == nil && len(entries) > 0 {
		return &hinted{fmt.Errorf("%s is not empty", c.Out), "name a directory that does not exist yet"}
	}
	key, err := seal.NewKey(rand.Reader)
	if err != nil {
		return err
	}
	chain, err := c.certify(t, f, c.Name, key.Public().(ed25519.PublicKey))
	if err != nil {
		return err
	}
	if err := saveContext(c.Out, f.contextFile, f.roots); err != nil {
		return err
	}
	if err := saveCredential(c.Out, seal.Role(c.Role), &seal.Credential{Chain: chain, Key: key}); err != nil {
		return err
	}
	return c.tell(t, chain, c.Out)
}

// renew certifies the key of this context anew, also when the certificate has expired.
func (c *credentialCreate) renew(t *terminal, f *federation) error {
	crt := filepath.Join(f.dir, c.Role+".crt")
	old, err := readPEM(crt, "CERTIFICATE")
	if err != nil {
		return &hinted{fmt.Errorf("renew: %w", err), "there is nothing to renew; make one with --name and --out"}
	}
	cert, err := x509.ParseCertificate(old[0])
	if err != nil {
		return fmt.Errorf("renew %s: %w", crt, err)
	}
	key, err := readKey(filepath.Join(f.dir, c.Role+".key"))
	if err != nil {
		return err
	}
	name := cert.Subject.CommonName
	if c.Name != "" && c.Name != name {
		return &usageError{fmt.Sprintf("the credential is %s's, not %s's", name, c.Name), "leave --name out"}
	}
	chain, err := c.certify(t, f, name, key.Public().(ed25519.PublicKey))
	if err != nil {
		return err
	}
	if err := writePEM(crt, "CERTIFICATE", chain...); err != nil {
		return err
	}
	return c.tell(t, chain, f.dir)
}

// certifyRequest signs the key that somebody made elsewhere.
func (c *credentialCreate) certifyRequest(ctx context.Context, t *terminal, f *federation) error {
	name, key, err := readRequest(c.Request)
	if err != nil {
		return err
	}
	if c.Name != "" && c.Name != name {
		return &usageError{fmt.Sprintf("the request is %s's, not %s's", name, c.Name), "leave --name out, or ask for a request under that name"}
	}
	fmt.Fprintf(t.err, "request of %s; fingerprint of the key: %s\n", name, keyFingerprint(key))
	root, err := c.openRoot(t, f)
	if err != nil {
		return err
	}
	if c.Role == string(seal.RoleOfficer) {
		if err := c.admit(ctx, t, f, root, name, key); err != nil {
			return err
		}
	}
	chain, err := c.certifyBy(root, f, name, key)
	if err != nil {
		return err
	}
	if err := writePEM(c.Out, "CERTIFICATE", chain...); err != nil {
		return err
	}
	return c.tell(t, chain, c.Out)
}

func (c *credentialCreate) certify(t *terminal, f *federation, name string, key ed25519.PublicKey) ([][]byte, error) {
	root, err := c.openRoot(t, f)
	if err != nil {
		return nil, err
	}
	return c.certifyBy(root, f, name, key)
}

func (c *credentialCreate) certifyBy(root *seal.Root, f *federation, name string, key ed25519.PublicKey) ([][]byte, error) {
	chain, err := root.Certify(seal.Role(c.Role), name, key, now(), c.Life)
	if err != nil {
		return nil, err
	}
	return chain, issued(f.dir, chain[0])
}

func (c *credentialCreate) tell(t *terminal, chain [][]byte, where string) error {
	cert, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return err
	}
	v := viewCertificate(cert)
	if c.json() {
		return printJSON(t.out, map[string]any{"name": v.Name, "role": v.Role, "fingerprint": v.Fingerprint, "expires": v.Expires, "path": where})
	}
	_, err = fmt.Fprintf(t.out, "%s: %s %s, valid until %s, fingerprint %s\n", where, v.Role, v.Name, v.Expires, v.Fingerprint)
	return err
}

// credentialRequest is `choir credential request`.
type credentialRequest struct {
	contextFlag
	outputFlag
	Role string `arg:"" help:"${enum}." enum:"operator,officer,auditor"`
	Name string `help:"Your name." required:"" placeholder:"NAME"`
	Out  string `help:"The request to write." required:"" placeholder:"FILE" type:"path"`
}

// Help is what --help explains.
func (credentialRequest) Help() string {
	return `Your key is made here and stays here, in the context's directory. Send the request to the holder of the root key, and tell
them the fingerprint by another way.

Example: choir credential request officer --name olga --out olga.csr`
}

// Run makes a key and a request.
func (c *credentialRequest) Run(t *terminal) error {
	if err := seal.CheckName(seal.Role(c.Role), c.Name); err != nil {
		return &usageError{"--name: " + err.Error(), ""}
	}
	dir, err := c.dir()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, c.Role+".key")
	key, err := readKey(path)
	if errors.Is(err, os.ErrNotExist) {
		key, err = newPersonKey(dir, path)
	}
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: c.Name}}, key)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	if err := writePEM(c.Out, "CERTIFICATE REQUEST", der); err != nil {
		return err
	}
	print := keyFingerprint(key.Public().(ed25519.PublicKey))
	return c.tell(t, t.out, map[string]any{"name": c.Name, "role": c.Role, "key": print, "path": c.Out}, "%s: request of %s; fingerprint of the key: %s", c.Out, c.Name, print)
}

func newPersonKey(dir, path string) (ed25519.PrivateKey, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	key, err := seal.NewKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(path, "PRIVATE KEY", der)
}

// credentialInstall is `choir credential install`.
type credentialInstall struct {
	contextFlag
	outputFlag
	Certificate string `arg:"" help:"The certificate you got for your request." type:"path"`
	From        string `help:"A context to copy addresses and root from, when this one has none yet." placeholder:"DIR" type:"path"`
}

// Help is what --help explains.
func (credentialInstall) Help() string {
	return `The certificate must be for the key that choir credential request made in this context.

Example: choir credential install olga.crt --from shared-context`
}

// Run installs a certificate.
func (c *credentialInstall) Run(t *terminal) error {
	dir, err := c.dir()
	if err != nil {
		return err
	}
	if c.From != "" {
		from, err := openContext(c.From)
		if err != nil {
			return err
		}
		if err := saveContext(dir, from.contextFile, from.roots); err != nil {
			return err
		}
	}
	f, err := openContext(dir)
	if err != nil {
		return err
	}
	chain, err := readPEM(c.Certificate, "CERTIFICATE")
	if err != nil {
		return missing("certificate", err)
	}
	id, err := f.roots.VerifyChain(chain, now())
	if err != nil {
		return &hinted{fmt.Errorf("certificate %s: %w", c.Certificate, err), credentialHint(err, id.Role)}
	}
	if !slices.Contains(people, id.Role) {
		return fmt.Errorf("certificate %s is a %s's, not a person's", c.Certificate, id.Role)
	}
	key, err := readKey(filepath.Join(dir, string(id.Role)+".key"))
	if err != nil {
		return err
	}
	if !id.Key.Equal(key.Public()) {
		return &hinted{fmt.Errorf("certificate %s is of another key than %s.key in %s", c.Certificate, id.Role, dir), "install it in the context whose request it answers"}
	}
	if err := writePEM(filepath.Join(dir, string(id.Role)+".crt"), "CERTIFICATE", chain...); err != nil {
		return err
	}
	return c.tell(t, t.out, map[string]any{"name": id.Name, "role": string(id.Role), "path": dir}, "%s: %s %s", dir, id.Role, id.Name)
}

// credentialList is `choir credential list`.
type credentialList struct {
	contextFlag
	outputFlag
}

// Help is what --help explains.
func (credentialList) Help() string {
	return `Coordinators keep no list of people: whom the root certified is trusted. So this lists your own credential and what was
issued from this context. Which of them are revoked the cluster tells an operator; when it does not answer, this says so, and
shows what was revoked from this context.

Example: choir credential list`
}

// certificateView is a person's certificate for programs.
type certificateView struct {
	Name        string `json:"name"`
	Role        string `json:"role"`
	Fingerprint string `json:"fingerprint"`
	Expires     string `json:"expires"`
	State       string `json:"state"`
	Own         bool   `json:"own"`
}

func viewCertificate(cert *x509.Certificate) certificateView {
	v := certificateView{Name: cert.Subject.CommonName, Fingerprint: seal.Fingerprint(cert.Raw), Expires: cert.NotAfter.UTC().Format(time.RFC3339), State: "valid"}
	if len(cert.URIs) == 1 {
		v.Role, _, _ = strings.Cut(strings.TrimPrefix(cert.URIs[0].Path, "/"), "/")
	}
	switch now := now(); {
	case now.After(cert.NotAfter):
		v.State = "expired"
	case cert.NotAfter.Sub(now) < expiryNotice:
		v.State = "expires soon"
	}
	return v
}

// Run lists credentials.
func (c *credentialList) Run(ctx context.Context, t *terminal) error {
	dir, err := c.dir()
	if err != nil {
		return err
	}
	certs, err := listIssued(dir)
	if err != nil {
		return err
	}
	views := []certificateView{}
	for _, role := range people {
		own, err := readPEM(filepath.Join(dir, string(role)+".crt"), "CERTIFICATE")
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		cert, err := x509.ParseCertificate(own[0])
		if err != nil {
			return fmt.Errorf("%s.crt in %s: %w", role, dir, err)
		}
		v := viewCertificate(cert)
		v.Own = true
		views = append(views, v)
	}
	for _, cert := range certs {
		v := viewCertificate(cert)
		if !slices.ContainsFunc(views, func(o certificateView) bool { return o.Fingerprint == v.Fingerprint }) {
			views = append(views, v)
		}
	}
	revoked, why := c.revoked(ctx, t)
	for i, v := range views {
		if revoked[v.Fingerprint] || revokedHere(dir, v.Fingerprint) {
			views[i].State = "revoked"
		}
	}
	if why != nil {
		fmt.Fprintf(t.err, "the cluster was not asked what was revoked elsewhere: %s\n", plain(why))
	}
	if c.json() {
		return printJSON(t.out, map[string]any{"credentials": views, "confirmed": revoked != nil})
	}
	tab := newTable("NAME", "ROLE", "STATE", "EXPIRES", "OWN", "FINGERPRINT")
	for _, v := range views {
		tab.add(v.Name, v.Role, v.State, v.Expires, map[bool]string{true: "yes", false: ""}[v.Own], v.Fingerprint)
	}
	return tab.print(t.out, "no credentials in "+dir)
}

// revoked asks the cluster which certificates were revoked, by fingerprint, for a few seconds. It is nil where nobody was
// asked: by an error, or because only operators may ask.
func (c *credentialList) revoked(ctx context.Context, t *terminal) (map[string]bool, error) {
	f, err := c.open(t)
	if err != nil || f.role != seal.RoleOperator {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	reply, err := f.certificates(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, print := range reply.Revoked {
		out[hex.EncodeToString(print)] = true
	}
	return out, nil
}

// credentialRevoke is `choir credential revoke`.
type credentialRevoke struct {
	contextFlag
	outputFlag
	Fingerprint string `arg:"" help:"The certificate's fingerprint, as credential list shows it."`
	Yes         bool   `help:"Do not ask."`
}

// Help is what --help explains.
func (credentialRevoke) Help() string {
	return `The certificate is refused by all coordinators from then on, and open connections with it are closed. It cannot be undone;
the person gets a new credential with the root key.

Example: choir credential revoke 25af50c6c6531dd12378979c4c968f2f5a2eeadedeedded391b4ac399d578ad0`
}

// Run revokes a person's certificate.
func (c *credentialRevoke) Run(ctx context.Context, t *terminal) error {
	f, err := c.open(t)
	if err != nil {
		return err
	}
	print := strings.ToLower(c.Fingerprint)
	if print == seal.Fingerprint(f.credential.Chain[0]) && !c.Yes {
		return &usageError{"this is the credential you are using", "add --yes if you mean it; you need the root key to come back"}
	}
	if !knownHere(f.dir, print) {
		fmt.Fprintln(t.err, "no certificate with this fingerprint was issued from this context; a fingerprint that nobody has is taken, too, so compare it")
	}
	if !c.Yes {
		if ok, err := confirm(t, "revoke the certificate "+print+" for good?"); err != nil || !ok {
			return orAbort(err)
		}
	}
	if _, err := f.operators().RevokePerson(ctx, &choirv1.RevokePersonRequest{Fingerprint: print}); err != nil {
		return said(err)
	}
	if err := markRevoked(f.dir, print); err != nil {
		return err
	}
	return c.tell(t, t.err, map[string]any{"fingerprint": print, "state": "revoked"}, "the certificate %s is revoked", print)
}
