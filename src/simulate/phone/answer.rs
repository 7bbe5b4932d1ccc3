//! The phone's other side: registering somewhere, and taking the calls that come.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::oneshot;

use super::{Act, Arrival, CallPlan, CallReport, OnCall, Phone, line};
use crate::audio::Codec;
use crate::call::worker::Surroundings;
use crate::sip::endpoint::EndpointHandle;
use crate::sip::leg::{LegMedia, LegSignal, SipLeg};
use crate::sip::message::{Method, StatusCode, Transport};
use crate::sip::ua::{ContactSpec, Credentials, LegCommand, OutRequest};
use crate::sip::uri::Uri;

/// What to do with a call that comes in.
#[derive(Debug, Clone)]
pub struct AnswerPlan {
    /// How long it rings first.
    pub ring: Duration,
    /// Codecs taken.
    pub codecs: Vec<Codec>,
    /// What to do once the call is answered.
    pub acts: Vec<Act>,
    /// The phone hangs up after this long at the latest.
    pub limit: Duration,
}

/// Where the phone registers, and as whom.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The address of record: `sip:ann@example.com`.
    pub address: Uri,
    /// Where the REGISTER goes.
    pub registrar: SocketAddr,
    /// Over what.
    pub transport: Transport,
    /// For the challenge.
    pub credentials: Option<Credentials>,
    /// How long it is to hold; 0 takes it back.
    pub expires: Duration,
}

impl Phone {
    /// Waits for a call, takes it and sees it to its end.
    ///
    /// # Errors
    /// When the call could not be taken: no port, no thread, an offer of no use.
    pub async fn answer(&self, plan: AnswerPlan) -> anyhow::Result<CallReport> {
        let arrival = self.arriving.lock().await.recv().await.context("the phone has stopped")?;
        self.take(arrival, plan).await
    }

    /// As [`Self::answer`], when a call comes within this time.
    ///
    /// # Errors
    /// As [`Self::answer`], and when none comes.
    pub async fn answer_within(&self, plan: AnswerPlan, patience: Duration) -> anyhow::Result<CallReport> {
        let coming = async { self.arriving.lock().await.recv().await };
        let arrival = tokio::time::timeout(patience, coming).await;
        let arrival =
            arrival.with_context(|| format!("nobody called within {} s", patience.as_secs_f64()))?;
        self.take(arrival.context("the phone has stopped")?, plan).await
    }

    /// Waits for a call and shows who calls; take it with [`Self::take`]. `None`: the phone has stopped.
    pub async fn arrival(&self) -> Option<Arrival> {
        self.arriving.lock().await.recv().await
    }

    /// Turns a call away.
    pub fn refuse(&self, arrival: &Arrival, status: StatusCode) {
        let leg = arrival.invite.leg;
        self.endpoint.command(leg, LegCommand::Reject { status, reason: None, headers: Vec::new() });
        self.lines().remove(&leg);
    }

    /// Where the phone takes calls.
    pub fn address(&self) -> Option<SocketAddr> {
        self.endpoint.local_addrs().first().map(|listener| listener.address)
    }

    /// Takes a call and sees it to its end.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub async fn take(&self, arrival: Arrival, plan: AnswerPlan) -> anyhow::Result<CallReport> {
        let id = arrival.invite.leg;
        let settings = self.settings(&plan.codecs, arrival.invite.source.ip());
        let handle = self.endpoint.clone();
        let (tell, told) = oneshot::channel();
        self.workers.place(move |around| async move {
            let report = take(handle, arrival, around, settings, plan).await;
            // Whoever asked has gone away: nobody wants the report.
            let _unwanted = tell.send(report);
        })?;
        let report = told.await.context("the phone's thread stopped")?;
        self.lines().remove(&id);
        report
    }

    /// Registers once and answers the registrar's final status. The contact holds for `expires`; whoever needs it longer
    /// calls again.
    ///
    /// # Errors
    /// When nothing could be sent.
    pub async fn register(&self, registration: &Registration) -> anyhow::Result<StatusCode> {
        let address = &registration.address;
        let target = line::target(&self.endpoint, registration.transport, registration.registrar, address)?;
        let user = address.user().unwrap_or_default().to_owned();
        let domain = address.host().with_context(|| format!("`{address}` has no domain to register at"))?;
        let uri = Uri::parse(format!("sip:{domain}").as_bytes())
            .map_err(|error| anyhow::anyhow!("`{domain}` is no domain to register at: {error}"))?;
        let params = format!(";expires={}", registration.expires.as_secs());
        let answer = self.endpoint.request(OutRequest {
            method: Method::Register,
            target,
            uri,
            from: address.clone(),
            to: address.clone(),
            call_id: None,
            cseq: None,
            route: Vec::new(),
            credentials: registration.credentials.clone(),
            headers: Vec::new(),
            contact: Some(ContactSpec { user, params }),
        });
        Ok(answer.await?.status)
    }
}

async fn take(
    handle: EndpointHandle,
    arrival: Arrival,
    around: Surroundings,
    settings: LegMedia,
    plan: AnswerPlan,
) -> anyhow::Result<CallReport> {
    let arrived = Instant::now();
    let Arrival { invite, events } = arrival;
    let mut leg =
        SipLeg::incoming(invite.leg, handle, events, around.pacer, settings, invite.offer.as_deref())?;
    leg.ring(false);
    let until = tokio::time::Instant::now() + plan.ring;
    let mut early = None;
    while let Ok(signal) = tokio::time::timeout_at(until, std::future::poll_fn(|cx| leg.poll(cx))).await {
        if let LegSignal::HungUp(hang_up) = signal {
            early = Some(hang_up);
            break;
        }
    }
    if early.is_none() {
        leg.answer();
    }
    let plan = CallPlan {
        target: invite.to.uri.clone(),
        remote: invite.source,
        transport: invite.transport,
        from: String::new(),
        codecs: plan.codecs,
        credentials: None,
        acts: plan.acts,
        limit: plan.limit,
    };
    let mut call = OnCall::new(leg, plan, arrived);
    call.report.ringing = Some(arrived);
    match early {
        Some(hang_up) => {
            call.report.hang_up = Some(hang_up);
            call.report.ended = Instant::now();
            Ok(call.report)
        }
        None => Ok(call.run().await),
    }
}
