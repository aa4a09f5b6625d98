package gateway

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/eventhose/eventhose"
)

const (
	snsDomain = `\.amazonaws\.(com|com\.cn|eu)`
	snsHosts  = `sns\.[a-z0-9-]{3,32}` + snsDomain
)

var (
	// snsSigner is the name of a certificate that signs: sns.amazonaws.com and, in some regions, sns-signing.eu-south-1.amazonaws.com or
	// sns-cn-north-1.amazonaws.com.cn, as the AWS SDK for Java 2 knows them.
	snsSigner  = regexp.MustCompile(`^sns(-signing)?([.-][a-z0-9-]{3,32})?` + snsDomain + `$`)
	snsCert    = certificateURL(snsHosts, `/SimpleNotificationService-[0-9a-f]{32}\.pem`)
	snsConfirm = regexp.MustCompile(`^https://` + snsHosts + `/\?[!"$-~]+$`) // visible, and without a fragment
	snsARN     = regexp.MustCompile(`^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?$`)
)

// sns is Amazon SNS, which anybody with an account can make sign a message to any address: so a source lists its topics.
func sns() Provider {
	const topics, refuseSHA1 = "topics", "refuse_sha1"
	return Provider{
		Name: "sns", Title: "Amazon SNS", Source: "https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html", timed: true,
		Doc: "Signature in the body: RSA with SHA-256, or SHA-1, over its fields, with the certificate at SigningCertURL; subscriptions are confirmed",
		Needs: []Need{{optionPrefix + topics, true, "the ARNs of the topics, separated by commas"},
			{optionPrefix + refuseSHA1, false, "true to take SignatureVersion 2 only"}},
		naming: Naming{ID: []string{"json:MessageId"}, Type: []string{"json:Type"}, Key: []string{"json:TopicArn"}, Time: []string{"json:Timestamp"}},
		open: func(c *configuration) (scheme, error) {
			s := &snsScheme{fetcher: c.Fetcher, topics: c.list(topics), tolerance: c.tolerance(0)}
			for _, arn := range s.topics {
				if !snsARN.MatchString(arn) {
					return scheme{}, eventhose.Invalid(optionPrefix+topics, "%s is not the ARN of a topic", quoted(arn))
				}
			}
			if len(s.topics) == 0 {
				return scheme{}, eventhose.Invalid(optionPrefix+topics, "is empty")
			}
			var err error
			if s.strict, err = c.flag(refuseSHA1); err != nil {
				return scheme{}, err
			}
			s.certificates, err = newCertificates(c, func(certificate *x509.Certificate) bool {
				return certifiedFor(certificate, snsSigner.MatchString)
			})
			return scheme{networked: true, check: s.check, stamp: snsStamp, reply: s.confirmed}, err
		},
	}
}

type snsScheme struct {
	certificates *certificates
	fetcher      Fetcher
	topics       []string
	strict       bool
	tolerance    time.Duration
}

// snsSigned are the fields that are signed, in order: those of them that a message has.
var snsSigned = []string{"Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"}

const (
	snsNotification = "Notification"
	snsSubscription = "SubscriptionConfirmation"
	snsUnsubscribed = "UnsubscribeConfirmation"
)

func (s *snsScheme) check(ctx context.Context, r *Request) *Rejection {
	fields, rejection := snsFields(r.Body)
	if rejection != nil {
		return rejection
	}
	if types := r.Header.Values("X-Amz-Sns-Message-Type"); len(types) > 1 || len(types) == 1 && types[0] != fields["Type"] {
		return reject(ReasonHeaderMalformed, "header x-amz-sns-message-type is not the Type of the body")
	}
	hash := crypto.SHA256
	switch v := fields["SignatureVersion"]; {
	case v == "1" && s.strict:
		return reject(ReasonBody, "SignatureVersion is 1, which the source does not take (options.refuse_sha1)")
	case v == "1":
		hash = crypto.SHA1
	case v != "2":
		return reject(ReasonBody, "SignatureVersion is %s, and should be 1 or 2", quoted(v))
	}
	signature, ok := Base64.decode(fields["Signature"])
	if !ok {
		return reject(ReasonBody, "Signature is not base64")
	}
	if !snsCert.MatchString(fields["SigningCertURL"]) {
		return reject(ReasonCertificate, "SigningCertURL is %s, which is not Amazon's", quoted(fields["SigningCertURL"]))
	}
	if !slices.Contains(s.topics, fields["TopicArn"]) {
		return reject(ReasonNotAllowed, "the topic %s is not in options.topics", quoted(fields["TopicArn"]))
	}
	if rejection := checkClock("Timestamp", fields["Timestamp"], RFC3339, r.Received, s.tolerance); rejection != nil {
		return rejection
	}
	key, rejection := s.certificates.key(ctx, fields["SigningCertURL"], r.Received)
	if rejection != nil {
		return rejection
	}
	var content strings.Builder
	for _, name := range snsSigned {
		if value, ok := fields[name]; ok {
			content.WriteString(name + "\n" + value + "\n")
		}
	}
	if rsa.VerifyPKCS1v15(key, hash, digest(hash, content.String()), signature) != nil {
		return reject(ReasonNoMatch, "the signature is not the certificate's: the message was changed on the way")
	}
	s.certificates.proved(fields["SigningCertURL"])
	if fields["Type"] == snsSubscription {
		return s.confirm(ctx, fields["SubscribeURL"])
	}
	return nil
}

func digest(hash crypto.Hash, content string) []byte {
	if hash == crypto.SHA1 {
		sum := sha1.Sum([]byte(content))
		return sum[:]
	}
	sum := sha256.Sum256([]byte(content))
	return sum[:]
}

// snsFields reads the fields that matter, all of them strings; null is as absent.
func snsFields(body []byte) (map[string]string, *Rejection) {
	var document map[string]any
	if json.Unmarshal(body, &document) != nil {
		return nil, reject(ReasonBody, "the body is not a JSON object, or a name is given twice in it")
	}
	fields := map[string]string{}
	for _, name := range append([]string{"SignatureVersion", "Signature", "SigningCertURL"}, snsSigned...) {
		switch value := document[name].(type) {
		case nil:
		case string:
			fields[name] = value
		default:
			return nil, reject(ReasonBody, "%s is not a string", name)
		}
	}
	needed := []string{"Message", "MessageId", "Timestamp", "TopicArn", "Type", "Signature", "SigningCertURL"}
	switch fields["Type"] {
	case snsNotification:
	case snsSubscription, snsUnsubscribed:
		needed = append(needed, "SubscribeURL", "Token")
	default:
		return nil, reject(ReasonBody, "Type is %s, and should be Notification, SubscriptionConfirmation or UnsubscribeConfirmation", quoted(fields["Type"]))
	}
	for _, name := range needed {
		if fields[name] == "" {
			return nil, reject(ReasonBody, "the body has no %s", name)
		}
	}
	for _, name := range snsSigned {
		// Each is signed as a line: only one may have several, or lines of one could be moved to another.
		if name != "Message" && strings.Contains(fields[name], "\n") {
			return nil, reject(ReasonBody, "%s has more than one line, which only Message may have", name)
		}
	}
	return fields, nil
}

// snsStamp is the id: of the body only some fields are signed.
func snsStamp(r *Request) [][]byte {
	fields, rejection := snsFields(r.Body)
	if rejection != nil {
		return nil
	}
	return [][]byte{[]byte(fields["MessageId"])}
}

// confirm says yes to a subscription that was verified and is to a topic of the source's.
func (s *snsScheme) confirm(ctx context.Context, url string) *Rejection {
	if len(url) > maxURL || !snsConfirm.MatchString(url) {
		return reject(ReasonNotAllowed, "SubscribeURL is %s, which is not Amazon's", quoted(url))
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	status, _, err := s.fetcher.Fetch(ctx, http.MethodGet, url, nil, nil)
	if err != nil || status != http.StatusOK {
		return reject(ReasonUnavailable, "the subscription cannot be confirmed: status %d", status)
	}
	return nil
}

// confirmed answers a confirmation, which is no event. That a topic let go of the source is one, so that it is seen.
func (s *snsScheme) confirmed(r *Request) *Answer {
	fields, rejection := snsFields(r.Body)
	if rejection != nil || fields["Type"] != snsSubscription {
		return nil
	}
	return &Answer{Status: http.StatusOK}
}
