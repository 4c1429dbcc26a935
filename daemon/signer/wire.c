// SPDX-License-Identifier: Apache-2.0
/* The messages between workers and the signer, for both ends. */
#include "signer/signer_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include "signer/ca_policy.h"
#include "signer/signer.h"
#include "pki/verify.h"

#define KEY_MAX 1024 /* DER of a public RSA key: one of 4096 bits has 550 bytes */

static void put_peer(struct signer_request *head, const struct sockaddr *peer)
{
	if (peer && peer->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)peer;

		head->family = AF_INET6;
		head->port = in6->sin6_port;
		memcpy(head->peer, &in6->sin6_addr, sizeof(in6->sin6_addr));
	} else if (peer && peer->sa_family == AF_INET) {
		const struct sockaddr_in *in4 = (const struct sockaddr_in *)peer;

		head->family = AF_INET;
		head->port = in4->sin_port;
		memcpy(head->peer, &in4->sin_addr, sizeof(in4->sin_addr));
	}
}

/* The key and the proof that it is ours, at *p, which moves behind them. */
static int put_key(struct signer_request *head, const struct signer_ask *ask, uint8_t **p)
{
	const struct new_key_claim claim = {.vserver = ask->vserver,
					    .service = ask->service,
					    .ca = ask->ca,
					    .proof = ask->transcript,
					    .proof_len = ask->transcript_len};
	int len;

	if (!ask->key)
		return 0;
	len = i2d_PUBKEY(ask->key, NULL);
	if (len <= 0)
		return -EINVAL;
	if (len > KEY_MAX)
		return -EMSGSIZE;
	head->key_len = (uint32_t)i2d_PUBKEY(ask->key, p);
	head->signature_len = (uint32_t)new_key_sign(ask->key, &claim, *p);
	*p += head->signature_len;
	return head->signature_len ? 0 : -EINVAL;
}

ssize_t signer_build_request(uint64_t id, const struct signer_ask *ask, uint8_t *buf)
{
	struct signer_request head = {.id = id,
				      .flow = ask->flow,
				      .vserver = ask->vserver,
				      .service = ask->service,
				      .ca = ask->ca,
				      .resumed = ask->resumed,
				      .transcript_len = (uint32_t)ask->transcript_len,
				      .ocsp_len = (uint32_t)ask->ocsp_len};
	uint8_t *p = buf + REQUEST_HEAD;
	int ret;

	if (ask->transcript_len > TRANSCRIPT_MAX || ask->ocsp_len > OCSP_RESPONSE_MAX)
		return -EMSGSIZE;
	ret = put_key(&head, ask, &p);
	if (ret)
		return ret;
	put_peer(&head, ask->peer);
	memcpy(buf, &head, REQUEST_HEAD);
	memcpy(p, ask->transcript, ask->transcript_len);
	if (ask->ocsp_len)
		memcpy(p + ask->transcript_len, ask->ocsp, ask->ocsp_len);
	return p - buf + (ssize_t)(ask->transcript_len + ask->ocsp_len);
}

const struct signer_response *signer_parse_response(const uint8_t *buf, size_t len)
{
	const struct signer_response *r = (const struct signer_response *)buf;

	if (len < RESPONSE_HEAD || (uintptr_t)buf % _Alignof(struct signer_response))
		return NULL;
	if (r->status >= SIGNER_STATUSES ||
	    (uint64_t)r->key_len + r->cert_len != len - RESPONSE_HEAD ||
	    (r->cert_len != 0) != (r->status == SIGNER_OK))
		return NULL;
	if (r->key_len && (r->key_len != NEW_KEY_SCALAR_LEN || !r->cert_len))
		return NULL;
	return r;
}

void signer_status_text(const struct signer_response *r, char *buf, size_t len)
{
	switch (r->status) {
	case SIGNER_OK:
		snprintf(buf, len, "issued");
		return;
	case SIGNER_BAD_REQUEST:
		snprintf(buf, len, "the request to the signer was malformed");
		return;
	case SIGNER_NO_PROOF:
		snprintf(buf, len, "no proof of possession: %s",
			 transcript_error_text((enum transcript_error)r->detail));
		return;
	case SIGNER_CHAIN:
		snprintf(buf, len, "the client's chain was refused: %s",
			 verify_error_text(r->detail));
		return;
	case SIGNER_RULE:
		snprintf(buf, len, "the client's certificate cannot be forged: %s",
			 forge_error_text((enum forge_error)r->detail));
		return;
	case SIGNER_REPLAY:
		snprintf(buf, len, "the handshake was used for a certificate before");
		return;
	case SIGNER_POLICY:
		snprintf(buf, len, "%s", ca_refusal_text((enum ca_refusal)r->detail));
		return;
	case SIGNER_RATE:
		snprintf(buf, len, "policy.rate is used up");
		return;
	case SIGNER_AUDIT:
		snprintf(buf, len, "the audit log cannot be written");
		return;
	case SIGNER_TOKEN:
		snprintf(buf, len, "the identity token is %s",
			 r->detail == TOKEN_EXHAUSTED ? "used too often" : "not valid");
		return;
	case SIGNER_STALE:
		snprintf(buf, len, "the handshake %s",
			 r->detail == STALE_OLD
				 ? "is older than timeout.handshake"
				 : "holds no fresh value of the signer's for this vserver");
		return;
	case SIGNER_FULL:
		snprintf(buf, len, "too many certificates within timeout.handshake");
		return;
	case SIGNER_KEY:
		snprintf(buf, len, "the new key was not proved to be the asker's");
		return;
	default:
		snprintf(buf, len, "unknown answer %u of the signer", r->status);
	}
}

/* req->head is set, as far as it goes, even if the rest is malformed. */
bool signer_parse_request(const uint8_t *message, size_t len, struct request *req)
{
	struct signer_request *head = &req->head;

	*req = (struct request){.head.vserver = UINT32_MAX};
	if (len < REQUEST_HEAD)
		return false;
	memcpy(head, message, REQUEST_HEAD);
	if (len > SIGNER_MESSAGE_MAX || head->transcript_len > TRANSCRIPT_MAX ||
	    head->ocsp_len > OCSP_RESPONSE_MAX ||
	    (uint64_t)head->key_len + head->signature_len + head->transcript_len + head->ocsp_len !=
		    len - REQUEST_HEAD)
		return false;
	req->key = message + REQUEST_HEAD;
	req->signature = req->key + head->key_len;
	req->transcript = req->signature + head->signature_len;
	req->ocsp = req->transcript + head->transcript_len;
	return true;
}
