package sign_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/eventhose/eventhose/sign"
)

func ExampleSign() {
	secret, err := sign.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		fmt.Println(err)
		return
	}
	at := time.Unix(1614265330, 0)
	body := []byte(`{"test": 2432232314}`)
	signature, err := sign.Sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, body, secret)
	fmt.Println(signature, err)
	// Output: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= <nil>
}

func ExampleVerify() {
	key, err := sign.ParseVerifier("whpk_ZlN4eg7dSSqi0moX9hQUk3orrOouK3QVQSlJa248c/g=")
	if err != nil {
		fmt.Println(err)
		return
	}
	h := http.Header{}
	h.Set(sign.HeaderID, "msg_p5jXN8AQM9LWM0D4loKWxJek")
	h.Set(sign.HeaderTimestamp, "1614265330")
	h.Set(sign.HeaderSignature, "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag==")
	body := []byte(`{"test": 2432232314}`)

	fmt.Println(sign.Verify(h, body, time.Unix(1614265330, 0), sign.DefaultTolerance, key))
	fmt.Println(sign.Verify(h, body, time.Unix(1614266230, 0), sign.DefaultTolerance, key))
	// Output:
	// <nil>
	// sign: message is too old: it was sent 15m0s ago, and 5m0s is allowed
}

// A receiver verifies before it does anything else.
func ExampleVerifyRequest() {
	secret := sign.NewSecret()
	receive := func(w http.ResponseWriter, r *http.Request) {
		body, err := sign.VerifyRequest(r, 1<<20, secret)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		fmt.Printf("%s: %s\n", r.Header.Get(sign.HeaderID), body)
	}

	now, body := time.Now(), `{"type":"order.paid"}`
	signature, err := sign.Sign("evt_1", now, []byte(body), secret)
	if err != nil {
		fmt.Println(err)
		return
	}
	r, _ := http.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set(sign.HeaderID, "evt_1")
	r.Header.Set(sign.HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
	r.Header.Set(sign.HeaderSignature, signature)
	receive(nil, r)
	// Output: evt_1: {"type":"order.paid"}
}
