package coordinator

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"maps"
	"slices"

	"choir.example/coordinator/state"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ListCertificates tells the roots, the coordinators' certificates, the officers' keys and what was revoked. A founder's issuing
// certificate stands in no record until it is replaced: the founder itself is asked.
func (c operatorsService) ListCertificates(ctx context.Context, _ *choirv1.ListCertificatesRequest) (*choirv1.ListCertificatesReply, error) {
	s := c.replica.State()
	if s.Cluster == "" {
		return nil, status.Error(codes.Unavailable, "list certificates: the federation is not founded yet")
	}
	reply := &choirv1.ListCertificatesReply{}
	for _, r := range s.Roots {
		reply.Roots = append(reply.Roots, &choirv1.RootStatus{Certificate: r.Root, Cross: r.Cross, Retired: r.Retired})
	}
	reply.Roots = append(reply.Roots, &choirv1.RootStatus{Certificate: s.Root})
	answers := c.answers(ctx, s)
	for _, v := range s.Coordinators {
		reply.Coordinators = append(reply.Coordinators, &choirv1.CertifiedCoordinator{Name: v.Name, Chain: v.Chain, Issuer: issuerOf(v, answers)})
	}
	for _, print := range slices.Sorted(maps.Keys(s.Revoked)) {
		b, err := hex.DecodeString(print)
		if err != nil {
			return nil, status.Errorf(codes.Internal, "list certificates: revoked %s: %v", print, err)
		}
		reply.Revoked = append(reply.Revoked, b)
	}
	for _, print := range slices.Sorted(maps.Keys(s.Officers)) {
		key, err := hex.DecodeString(print)
		if err != nil {
			return nil, status.Errorf(codes.Internal, "list certificates: officer %s: %v", print, err)
		}
		reply.Officers = append(reply.Officers, &choirv1.OfficerStatus{Key: key, Name: s.Officers[print].Name, Replaced: s.Officers[print].Replaced})
	}
	return reply, nil
}

// answers are what the voters say of themselves, this one among them.
func (c *Coordinator) answers(ctx context.Context, s *state.State) map[string]*choirv1.PresenceReply {
	answers := c.askPeers(ctx, s)
	answers[c.cfg.Name] = &choirv1.PresenceReply{Applied: s.Index, Issuer: c.own.Load().issuer.Certificate}
	return answers
}

// issuerOf is a coordinator's issuing certificate, as the state or its own answer says.
func issuerOf(v state.Coordinator, answers map[string]*choirv1.PresenceReply) []byte {
	if len(v.Issuer) > 0 {
		return v.Issuer
	}
	return answers[v.Name].GetIssuer()
}

// expiresMS is when the first of a coordinator's certificates ends, in Unix milliseconds; 0 if it has none that can be
// read.
func expiresMS(certificates ...[]byte) (first int64) {
	for _, der := range certificates {
		if cert, err := x509.ParseCertificate(der); err == nil && (first == 0 || cert.NotAfter.UnixMilli() < first) {
			first = cert.NotAfter.UnixMilli()
		}
	}
	return first
}

// RotateRoot puts another root in the place of the present one. What the roots have signed is the permission; an operator
// only carries it.
func (c operatorsService) RotateRoot(ctx context.Context, req *choirv1.RotateRootRequest) (*choirv1.RotateRootReply, error) {
	err := c.command(ctx, &choirv1.Command{Body: &choirv1.Command_RotateRoot{RotateRoot: &choirv1.RotateRoot{
		Old: req.Old, Root: req.Root, Cross: req.Cross, Coordinators: req.Coordinators, Retire: req.Retire, TimeMs: c.deps.Now().UnixMilli(),
	}}}, func(s *state.State) bool { return bytes.Equal(s.Root, req.Root) })
	if err != nil {
		return nil, rpcError("rotate root", err)
	}
	return &choirv1.RotateRootReply{}, nil
}

// RenewCoordinator gives a coordinator new certificates, which the root has signed.
func (c operatorsService) RenewCoordinator(ctx context.Context, req *choirv1.RenewCoordinatorRequest) (*choirv1.RenewCoordinatorReply, error) {
	e := req.Coordinator
	if _, ok := c.replica.State().Coordinator(e.GetName()); !ok {
		return nil, status.Errorf(codes.NotFound, "renew: coordinator %q is not a voter", e.GetName())
	}
	err := c.command(ctx, &choirv1.Command{Body: &choirv1.Command_RenewCoordinator{RenewCoordinator: &choirv1.RenewCoordinator{
		Coordinator: e, TimeMs: c.deps.Now().UnixMilli(),
	}}}, func(s *state.State) bool {
		v, _ := s.Coordinator(e.GetName())
		return slices.EqualFunc(v.Chain, e.GetChain(), bytes.Equal)
	})
	if err != nil {
		return nil, rpcError("renew coordinator", err)
	}
	return &choirv1.RenewCoordinatorReply{}, nil
}

// AdmitOfficer counts an officer's key, by a statement that the root has signed.
func (c operatorsService) AdmitOfficer(ctx context.Context, req *choirv1.AdmitOfficerRequest) (*choirv1.AdmitOfficerReply, error) {
	err := c.command(ctx, &choirv1.Command{Body: &choirv1.Command_AdmitOfficer{AdmitOfficer: &choirv1.AdmitOfficer{
		Key: req.Key, Replaces: req.Replaces, Name: req.Name, Signature: req.Signature,
	}}}, func(s *state.State) bool { return s.CountsOfficer(req.Key) })
	if err != nil {
		return nil, rpcError("admit officer", err)
	}
	return &choirv1.AdmitOfficerReply{}, nil
}
