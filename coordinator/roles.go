package coordinator

import (
	"context"
	"slices"

	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Application protocols of a coordinator's one port.
const (
	protoGRPC   = "h2"
	protoRaft   = "choir-raft"
	protoGossip = "choir-gossip"
	protoHTTP   = "http/1.1" // the console, for browsers
)

// protocols lists them, in order of preference.
func protocols() []string { return []string{protoGRPC, protoRaft, protoGossip, protoHTTP} }

// readers are the people, all of whom may read what the console shows.
var readers = []seal.Role{seal.RoleOperator, seal.RoleOfficer, seal.RoleAuditor}

// roles is the one table of who may call what: every RPC, and the protocols beside gRPC by their ALPN name. RoleNone
// stands for a caller without a client certificate. What is not in the table is refused to everybody.
var roles = map[string][]seal.Role{
	protoRaft:   {seal.RoleCoordinator},
	protoGossip: {seal.RoleCoordinator},
	protoHTTP:   readers,

	choirv1.Enrolment_Enrol_FullMethodName:      {seal.RoleNone, seal.RoleNode},
	choirv1.Enrolment_Renew_FullMethodName:      {seal.RoleNone, seal.RoleNode},
	choirv1.Enrolment_Join_FullMethodName:       {seal.RoleNone},
	choirv1.Enrolment_Membership_FullMethodName: {seal.RoleNone},

	choirv1.Nodes_Poll_FullMethodName:       {seal.RoleNode},
	choirv1.Nodes_Upload_FullMethodName:     {seal.RoleNode},
	choirv1.Nodes_GetOutcome_FullMethodName: {seal.RoleNode},
	choirv1.Nodes_GetBlob_FullMethodName:    {seal.RoleNode},
	choirv1.Nodes_GetRelease_FullMethodName: {seal.RoleNode},

	choirv1.Operators_CreateToken_FullMethodName:        {seal.RoleOperator},
	choirv1.Operators_SubmitJob_FullMethodName:          {seal.RoleOperator},
	choirv1.Operators_GetJob_FullMethodName:             readers,
	choirv1.Operators_WatchJob_FullMethodName:           readers,
	choirv1.Operators_GetRelease_FullMethodName:         readers,
	choirv1.Operators_GetBlob_FullMethodName:            {seal.RoleOperator},
	choirv1.Operators_GetStatus_FullMethodName:          readers,
	choirv1.Operators_GetBundle_FullMethodName:          readers,
	choirv1.Operators_ListTokens_FullMethodName:         {seal.RoleOperator},
	choirv1.Operators_RevokeToken_FullMethodName:        {seal.RoleOperator},
	choirv1.Operators_ListNodes_FullMethodName:          readers,
	choirv1.Operators_RevokeNode_FullMethodName:         {seal.RoleOperator},
	choirv1.Operators_RevokePerson_FullMethodName:       {seal.RoleOperator},
	choirv1.Operators_ListJoins_FullMethodName:          {seal.RoleOperator},
	choirv1.Operators_ApproveCoordinator_FullMethodName: {seal.RoleOperator},
	choirv1.Operators_RemoveCoordinator_FullMethodName:  {seal.RoleOperator},
	choirv1.Operators_ListCertificates_FullMethodName:   {seal.RoleOperator},
	choirv1.Operators_RotateRoot_FullMethodName:         {seal.RoleOperator},
	choirv1.Operators_RenewCoordinator_FullMethodName:   {seal.RoleOperator},
	choirv1.Operators_AdmitOfficer_FullMethodName:       {seal.RoleOperator},
	choirv1.Operators_ListJobs_FullMethodName:           readers,
	choirv1.Operators_ControlJob_FullMethodName:         {seal.RoleOperator},
	choirv1.Operators_ListReleases_FullMethodName:       readers,

	choirv1.Peers_Propose_FullMethodName:   {seal.RoleCoordinator},
	choirv1.Peers_PutBlob_FullMethodName:   {seal.RoleCoordinator},
	choirv1.Peers_FetchBlob_FullMethodName: {seal.RoleCoordinator},
	choirv1.Peers_Presence_FullMethodName:  {seal.RoleCoordinator},
	choirv1.Peers_SignHead_FullMethodName:  {seal.RoleCoordinator},
	choirv1.Peers_Committed_FullMethodName: {seal.RoleCoordinator},
}

// allowed reports whether the role may use the RPC or protocol.
func allowed(what string, role seal.Role) bool { return slices.Contains(roles[what], role) }

// identityKey is the context key of the caller's identity.
type identityKey struct{}

// caller is who calls: an identity with RoleNone if it presented no certificate.
func caller(ctx context.Context) seal.Identity {
	id, _ := ctx.Value(identityKey{}).(seal.Identity)
	return id
}

// authorise puts the caller's identity into the context, or refuses the call. The certificate was verified in the
// handshake; revocation is checked here again, because connections live long.
func (c *Coordinator) authorise(ctx context.Context, method string) (context.Context, error) {
	id := seal.Identity{Role: seal.RoleNone}
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
			var err error
			if id, err = c.identify(info.State); err != nil {
				return nil, status.Errorf(codes.Unauthenticated, "verify certificate: %v", err)
			}
			if err := c.admit(id); err != nil {
				return nil, status.Errorf(codes.Unauthenticated, "%v", err)
			}
		}
	}
	if !allowed(method, id.Role) {
		return nil, status.Errorf(codes.PermissionDenied, "%s may not call %s", describe(id), method)
	}
	return context.WithValue(ctx, identityKey{}, id), nil
}

func describe(id seal.Identity) string {
	if id.Role == seal.RoleNone {
		return "a caller without certificate"
	}
	return string(id.Role) + " " + id.Name
}

func (c *Coordinator) authoriseUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, err := c.authorise(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	leave, err := c.admitCall(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := c.current(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (c *Coordinator) authoriseStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, err := c.authorise(ss.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	leave, err := c.admitCall(ctx, info.FullMethod)
	if err != nil {
		return err
	}
	defer leave()
	if err := c.current(ctx, info.FullMethod); err != nil {
		return err
	}
	return next(srv, &identifiedStream{ss, ctx})
}

// identifiedStream is a stream whose context knows the caller.
type identifiedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *identifiedStream) Context() context.Context { return s.ctx }
